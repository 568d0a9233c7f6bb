//! Benchmarks: micro-benchmarks of the cores, and the proxy side by side with its peers.
