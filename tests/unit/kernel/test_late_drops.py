"""What of /proc/net is read as late drops, in every form that kernels have."""

from napctl.kernel.late_drops import in_lines, in_pairs

SNMP = b"""\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm OutSegs
Tcp: 1 17
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 100 3 0 90 41 0 0 0 5
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
UdpLite: 1 2 3 4 5 6 7 8 9
"""
NETSTAT = b"""\
TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPBacklogDrop TCPRcvQDrop
TcpExt: 1 2 3 4 18446744073709551615
IpExt: InNoRoutes InTruncatedPkts
IpExt: 1 2
"""


def test_only_what_is_wanted_is_read_each_of_its_own_group() -> None:
    assert in_pairs(SNMP) == {"Udp:NoPorts": 3, "Udp:RcvbufErrors": 41, "Udp:MemErrors": 5}
    assert in_pairs(NETSTAT) == {"TcpExt:ListenDrops": 3, "TcpExt:TCPBacklogDrop": 4, "TcpExt:TCPRcvQDrop": 2**64 - 1}
    lines = b"Ip6InReceives \t7\nUdp6NoPorts                     \t8\nUdp6RcvbufErrors\t9\n"
    assert in_lines(lines) == {"Udp6NoPorts": 8, "Udp6RcvbufErrors": 9}


def test_an_older_kernel_without_a_counter_is_no_error() -> None:
    assert in_pairs(b"Udp: InDatagrams NoPorts\nUdp: 1 2\n") == {"Udp:NoPorts": 2}
    assert in_pairs(b"") == in_lines(b"") == {}
