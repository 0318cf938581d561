//! Tasks executed on small files.
