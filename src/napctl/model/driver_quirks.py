"""What is known of NIC drivers that no interface tells, each with its source.

What they mean by their coalescing settings, where it is not what the settings say: a plan that knows this proposes
nothing that the driver would refuse or take for something else. What is not known here, `apply` finds out: it reads
every setting back.
"""

from napctl.model.machine import Device

__all__ = ["PERSISTENT", "RECEIVES_WHERE_ANSWERED", "is_a_mode", "no_tx_delay", "takes_usecs", "without_coalescing"]


MODES = {"e1000e": 4, "igb": 3, "igbvf": 3, "igc": 3, "ixgbe": 1, "ixgbevf": 1}
"""Values from 1 to this one stand for a moderation of the driver's own choosing, and are no µs.

Source: e1000_set_coalesce() in drivers/net/ethernet/intel/e1000e/ethtool.c, igb_set_coalesce(), igbvf_set_coalesce(),
igc_ethtool_set_coalesce(), ixgbe_set_coalesce(), ixgbevf_set_coalesce() ("only valid if in constant ITR mode").
"""
LEAST_USECS = {"e1000e": 10, "igb": 10, "igbvf": 10, "igc": 10, "ixgbe": 2, "ixgbevf": 2}
"""The shortest delay other than 0 that they take for µs (IGB_MIN_ITR_USECS and its like; the same functions)."""
PAIRED = frozenset({"igb", "ixgbe", "ixgbevf"})
"""Drivers whose RX and TX queue may share one interrupt, with one delay: any tx-usecs of its own is refused then.

They report tx-usecs 0 for such pairs: "if in mixed tx/rx queues per vector mode, report only rx settings" in
ixgbe_get_coalesce(), IGB_FLAG_QUEUE_PAIRS in igb_get_coalesce(). igc reports the RX delay in its place
(IGC_FLAG_QUEUE_PAIRS), which cannot be told from a delay of its own.
"""
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


def is_a_mode(device: Device, usecs: int | None) -> bool:
    """Whether that delay is a word of the driver's for a moderation of its own."""
    return usecs is not None and 1 <= usecs <= MODES.get(device.driver or "", 0)


def takes_usecs(device: Device, usecs: int) -> int:
    """The longest delay that is not above `usecs` and that the driver takes for what it says: 0 if it has none such."""
    return usecs if usecs >= LEAST_USECS.get(device.driver or "", 0) else 0


def without_coalescing(device: Device) -> str | None:
    """Why a device that reports coalescing has none; None if nothing is known against it.

    virtio_net reports 0 µs and 1 frame where the host has no notification coalescing, and refuses everything else:
    virtnet_get_coalesce() and virtnet_coal_params_supported() in drivers/net/virtio_net.c. A device that has it reports
    0 frames at first.
    """
    coalescing = device.coalescing
    if device.driver != "virtio_net" or coalescing is None:
        return None
    if coalescing.rx_usecs or coalescing.tx_usecs or coalescing.rx_max_frames != 1:
        return None
    return (
        "virtio_net says 0 µs and 1 frame, as it does where the host has no VIRTIO_NET_F_NOTF_COAL; "
        "it would refuse any other coalescing"
    )


def no_tx_delay(device: Device) -> str | None:
    """Why tx-usecs is not the delay of TX completions on this device; None if nothing is known against it."""
    coalescing = device.coalescing
    if coalescing is None:
        return None
    if device.driver == "igc" or (device.driver in PAIRED and coalescing.tx_usecs == 0):
        return f"the RX and TX queues of {device.driver} share interrupts, whose delay is rx-usecs"
    if device.driver == "virtio_net" and coalescing.tx_max_frames == 0:
        # virtnet_set_coalesce(): tx-max-frames switches TX NAPI, which is EBUSY while the link is up
        return "virtio_net frees sent packets without TX interrupts here (tx-max-frames 0)"
    return None
