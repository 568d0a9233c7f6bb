//! The minimal controller of amphorae: drives one or two of them through the native API, and shows the demo.
