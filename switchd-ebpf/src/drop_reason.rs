//! Why a packet, or a copy of it, went no further.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why a packet, or a copy of it, went no further. The number is the counter's index.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[$doc])* $variant,)+ }

        impl DropReason {
            /// All of them, by number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that users see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// No flow matches.
    NoMatch = "no_match",
    /// The flow that matches has no output.
    Flow = "flow",
    /// `ct(table=N)` more often than allowed.
    RecirculationLimit = "recirculation_limit",
    /// `resubmit` deeper, or more often, than allowed, or clones nested too deeply by way of it.
    ResubmitLimit = "resubmit_limit",
    /// More actions than allowed.
    ActionLimit = "action_limit",
    /// More outputs, or differing copies, than allowed.
    OutputLimit = "output_limit",
    /// An output to a port that the bridge does not have.
    NoSuchPort = "no_such_port",
    /// An output to the port of entry, which needs `in_port`.
    InputPort = "input_port",
    /// `dec_ttl` at the last hop.
    TtlExpired = "ttl_expired",
    /// `push_vlan` on a frame that has a tag.
    VlanStack = "vlan_stack",
    /// NORMAL does not forward bridge protocols' addresses (IEEE 802.1D, 7.12.6).
    ReservedAddress = "reserved_address",
    /// The connection table is full, and nothing in it may go.
    ConntrackFull = "conntrack_full",
    /// The zone has as many connections as it may have.
    ConntrackZoneLimit = "conntrack_zone_limit",
    /// The answers to the connection would look like another connection's.
    ConntrackClash = "conntrack_clash",
    /// Every address and port that `nat` allows is taken.
    NatExhausted = "nat_exhausted",
    /// A later fragment is to be committed, but what the first one committed is gone.
    ConntrackFragment = "conntrack_fragment",
    /// Another CPU held the connection for too long.
    ConntrackBusy = "conntrack_busy",
    /// The packet could not be changed as the flow wants.
    Rewrite = "rewrite",
    /// The kernel refused to send it.
    Transmit = "transmit",
    /// What XDP left for tcx to finish was overtaken by too many others.
    Overtaken = "overtaken",
    /// The device is no port of any bridge.
    NotAPort = "not_a_port",
}
