//! Fixtures and oracle of the workspace tests.
