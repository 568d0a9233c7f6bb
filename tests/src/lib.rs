//! End-to-end tests: whole programs, real peers, network namespaces that the tests make themselves.
