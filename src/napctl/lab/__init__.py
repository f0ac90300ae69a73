"""The test bed: network namespaces, veth, real servers, real load. Nothing outside its own namespaces is changed."""
