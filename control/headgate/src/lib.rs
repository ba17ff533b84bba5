//! headgate
