"""What is known of NIC drivers that no interface tells, each with its source."""

PERSISTENT = frozenset(
    {
        "bnge",
        "bnxt_en",
        "ena",
        "fbnic",
        "iavf",
        "ice",
        "idpf",
        "igb",
        "mlx4_en",
        "mlx5_core",
        "netdevsim",
        "rtase",
        "virtio_net",  # its RX instances; the TX ones have no id, so no settings of their own
    }
)
"""Drivers that call netif_napi_add_config() (commit 86e25f40aa1e, Linux 6.13), as of Linux 7.3; older ones have fewer.
i40e, igc, ixgbe, gve, mana, hv_netvsc, r8169, e1000e and veth are not among them."""

RECEIVES_WHERE_ANSWERED = frozenset({"virtio_net"})
"""Drivers whose device may receive a connection over the queue over which it was answered last, whatever received it
first: a tap with several queues learns it so (tun_flow_update() in drivers/net/tun.c), unless its host has RSS."""
