//! The kind init_model.
