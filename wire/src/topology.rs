//! topology.toml: the cluster, its datacenters and nodes.
