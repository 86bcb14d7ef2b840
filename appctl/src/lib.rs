//! The control-socket protocol (unixctl JSON-RPC) and the ovs-appctl and ovs-vsctl style tools on top of it.
