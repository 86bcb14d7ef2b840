//! End-to-end tests in network namespaces, and the lab that they and the demo run in.
