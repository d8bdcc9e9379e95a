"""Bonding: one net_device over several, in each mode of Linux's bonding driver.

    bond.py        the device: slaves, carrier, queue, receive, time      Bond, bond_create()
    params.py      its options, and the mode for the other end            BondParams, parse_options(), partner_mode()
    enslave.py     how a device becomes a slave, and how it leaves        bond_enslave(), bond_release()
    receive.py     what a slave received                                  bond_handle_frame()
    xmit.py        which slave a frame leaves on, by mode                 bond_xmit_activebackup(), bond_3ad_xmit_xor()
    queue_xmit.py  from the bond to a slave                               bond_dev_queue_xmit()
    slave_netpoll.py  netpoll on the slaves, while the bond has it        bond_netpoll_setup()
    hash.py        xmit_hash_policy                                       bond_xmit_hash()
    active.py      the active slave and its addresses                     bond_select_active_slave()
    miimon.py      the link monitor                                       bond_mii_monitor()
    alb.py         balance-tlb and -alb                                   bond_tlb_xmit(), bond_alb_xmit()
    ad.py          802.3ad: the system; with lacpdu.py (octets), port.py  AdSystem
                   (variables), machines.py, aggregator.py (selection)
    status.py      what /proc/net/bonding/NAME would say                  proc_info()

In: slaves (NetDevices), frames, the time. Out: frames on slaves, one carrier. The one rule: the modes
decide from state that is kept up in process context, so that sending needs none.
"""

from guest.netpoll.bonding.bond import Bond, bond_create
from guest.netpoll.bonding.params import (
    AdSelect,
    BondParams,
    FailOverMac,
    LacpRate,
    Mode,
    ParamError,
    PrimaryReselect,
    XmitPolicy,
    parse_options,
    partner_mode,
)
from guest.netpoll.bonding.slave import Link, Slave
from guest.netpoll.bonding.slave_netpoll import SlaveNetpoll
from guest.netpoll.bonding.status import proc_info

__all__ = [
    "AdSelect",
    "Bond",
    "BondParams",
    "FailOverMac",
    "LacpRate",
    "Link",
    "Mode",
    "ParamError",
    "PrimaryReselect",
    "Slave",
    "SlaveNetpoll",
    "XmitPolicy",
    "bond_create",
    "parse_options",
    "partner_mode",
    "proc_info",
]
