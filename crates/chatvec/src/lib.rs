//! chatvec.
