//! The agent of an amphora: REST for controllers in front, files and the control socket of the proxy behind.
