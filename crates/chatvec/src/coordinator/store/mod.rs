//! The job store: all SQL of the product lives below this module.
