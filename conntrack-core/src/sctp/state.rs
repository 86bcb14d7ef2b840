//! The states of an SCTP association and how each control chunk moves them.

/// The state of an association as seen from the middle, with Linux's numbers. As TCP's
/// [`State`](crate::tcp::State) a newtype, for any byte may be read back.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State(pub u8);

impl State {
    /// Nothing seen yet.
    pub const NONE: Self = Self(0);
    /// An INIT was seen, or the association has ended.
    pub const CLOSED: Self = Self(1);
    /// The INIT was answered by an INIT ACK.
    pub const COOKIE_WAIT: Self = Self(2);
    /// A COOKIE ECHO was seen.
    pub const COOKIE_ECHOED: Self = Self(3);
    /// It was answered by a COOKIE ACK; or, on a further path, a HEARTBEAT was answered.
    pub const ESTABLISHED: Self = Self(4);
    /// A SHUTDOWN was seen in the original direction.
    pub const SHUTDOWN_SENT: Self = Self(5);
    /// A SHUTDOWN was seen in the reply direction.
    pub const SHUTDOWN_RECD: Self = Self(6);
    /// It was answered by a SHUTDOWN ACK.
    pub const SHUTDOWN_ACK_SENT: Self = Self(7);
    /// A HEARTBEAT came first: a further path of an association.
    pub const HEARTBEAT_SENT: Self = Self(8);

    /// Whether the association is being shut down.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::SHUTDOWN_SENT | Self::SHUTDOWN_RECD | Self::SHUTDOWN_ACK_SENT)
    }

    /// OVS's name (`ct_dpif_sctp_state_string`).
    #[must_use]
    pub const fn ovs_name(self) -> &'static str {
        match self {
            Self::COOKIE_WAIT => "COOKIE_WAIT",
            Self::COOKIE_ECHOED => "COOKIE_ECHOED",
            Self::ESTABLISHED => "ESTABLISHED",
            Self::SHUTDOWN_SENT => "SHUTDOWN_SENT",
            Self::SHUTDOWN_RECD => "SHUTDOWN_RECD",
            Self::SHUTDOWN_ACK_SENT => "SHUTDOWN_ACK_SENT",
            Self::HEARTBEAT_SENT => "HEARTBEAT_SENT",
            _ => "CLOSED",
        }
    }
}

/// The chunk has no place in this state.
pub(super) const INVALID: State = State(9);

const CL: u8 = State::CLOSED.0;
const CW: u8 = State::COOKIE_WAIT.0;
const CE: u8 = State::COOKIE_ECHOED.0;
const ES: u8 = State::ESTABLISHED.0;
const SS: u8 = State::SHUTDOWN_SENT.0;
const SR: u8 = State::SHUTDOWN_RECD.0;
const SA: u8 = State::SHUTDOWN_ACK_SENT.0;
const HS: u8 = State::HEARTBEAT_SENT.0;
const IV: u8 = INVALID.0;
/// A row of chunks that are no control chunks, and so move nothing.
const NONE: [u8; 16] = [IV; 16];

/// By direction, chunk type and state; columns beyond the known ones are invalid.
static TRANSITIONS: [[[u8; 16]; 16]; 2] = [
    [
        // none CL CW  CE  ES  SS  SR  SA  HS
        NONE,
        [CL, CL, CW, CE, ES, CL, CL, SA, CW, IV, IV, IV, IV, IV, IV, IV], // INIT
        [CL, CL, CW, CE, ES, SS, SR, SA, CL, IV, IV, IV, IV, IV, IV, IV], // INIT ACK
        NONE,
        [HS, CL, CW, CE, ES, SS, SR, SA, HS, IV, IV, IV, IV, IV, IV, IV], // HEARTBEAT
        [CL, CL, CW, CE, ES, SS, SR, SA, HS, IV, IV, IV, IV, IV, IV, IV], // HEARTBEAT ACK
        [CL, CL, CL, CL, CL, CL, CL, CL, CL, IV, IV, IV, IV, IV, IV, IV], // ABORT
        [CL, CL, CW, CE, SS, SS, SR, SA, CL, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN
        [SA, CL, CW, CE, ES, SA, SA, SA, SA, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN ACK
        [CL, CL, CW, CE, ES, SS, SR, SA, CL, IV, IV, IV, IV, IV, IV, IV], // ERROR
        [CL, CL, CE, CE, ES, SS, SR, SA, CL, IV, IV, IV, IV, IV, IV, IV], // COOKIE ECHO
        [CL, CL, CW, ES, ES, SS, SR, SA, CL, IV, IV, IV, IV, IV, IV, IV], // COOKIE ACK
        NONE,
        NONE,
        [CL, CL, CW, CE, ES, SS, SR, CL, CL, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN COMPLETE
        NONE,
    ],
    [
        NONE,
        [IV, CL, CW, CE, ES, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // INIT
        [IV, CW, CW, CE, ES, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // INIT ACK
        NONE,
        [IV, CL, CW, CE, ES, SS, SR, SA, HS, IV, IV, IV, IV, IV, IV, IV], // HEARTBEAT
        [IV, CL, CW, CE, ES, SS, SR, SA, ES, IV, IV, IV, IV, IV, IV, IV], // HEARTBEAT ACK
        [IV, CL, CL, CL, CL, CL, CL, CL, IV, IV, IV, IV, IV, IV, IV, IV], // ABORT
        [IV, CL, CW, CE, SR, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN
        [IV, CL, CW, CE, ES, SA, SA, SA, IV, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN ACK
        [IV, CL, CW, CL, ES, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // ERROR: the cookie was stale
        [IV, CL, CE, CE, ES, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // COOKIE ECHO
        [IV, CL, CW, ES, ES, SS, SR, SA, IV, IV, IV, IV, IV, IV, IV, IV], // COOKIE ACK
        NONE,
        NONE,
        [IV, CL, CW, CE, ES, SS, SR, CL, IV, IV, IV, IV, IV, IV, IV, IV], // SHUTDOWN COMPLETE
        NONE,
    ],
];

/// Where a control chunk leads from a state, by its direction's number.
#[inline(always)]
pub(super) fn transition(direction: u8, kind: u8, state: State) -> State {
    State(TRANSITIONS[usize::from(direction & 1)][usize::from(kind & 15)][usize::from(state.0 & 15)])
}
