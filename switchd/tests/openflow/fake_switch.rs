//! A switch with one bridge and no packets, and a client to talk to it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ofctl::port::PortNo;
use ofctl::wire::Port;
use switchd::datapath::Selection;
use switchd::hooks::PortStats;
use switchd::ofproto::Ofproto;
use switchd::openflow::{Backend, BridgeServer};
use switchd::rules::{BridgeId, Rules};
use tokio::runtime::Runtime;

use crate::fake_rules::FakeRules;
use crate::flows::BRIDGE;

pub struct FakeBackend {
    tables: Mutex<Option<(Ofproto, FakeRules)>>,
    start: Instant,
    /// Seconds that the clock is put forward.
    ahead: AtomicU64,
    /// The connections that were to be forgotten.
    flushed: Mutex<Vec<Selection>>,
    shows_fragments: AtomicBool,
}

impl Backend for FakeBackend {
    fn with_tables<T>(
        &self,
        bridge: BridgeId,
        f: impl FnOnce(&mut Ofproto, &mut dyn Rules) -> T,
    ) -> Option<T> {
        assert_eq!(bridge, BRIDGE);
        self.tables.lock().unwrap().as_mut().map(|(tables, rules)| f(tables, rules))
    }

    fn datapath_id(&self, _: BridgeId) -> u64 {
        0x6a58_e795_1746
    }

    fn ports(&self, _: BridgeId) -> Vec<Port> {
        let port = |number, name: &str, current| Port {
            number: PortNo(number),
            hw_addr: [2, 0, 0, 0, 0, number as u8],
            name: name.to_owned(),
            config: 0,
            state: 0,
            current,
            advertised: 0,
            supported: 0,
            peer: 0,
        };
        // 10GB-FD and COPPER, as veth says.
        vec![port(PortNo::LOCAL.0, "br0", 0), port(2, "veth_r0", 0x840), port(1, "veth_l0", 0x840)]
    }

    fn flush_connections(&self, which: &Selection) {
        self.flushed.lock().unwrap().push(which.clone());
    }

    fn shows_fragments(&self, _: BridgeId) -> bool {
        self.shows_fragments.load(Ordering::SeqCst)
    }

    fn show_fragments(&self, _: BridgeId, show: bool) {
        self.shows_fragments.store(show, Ordering::SeqCst);
    }

    fn port_stats(&self, _: BridgeId, port: PortNo) -> PortStats {
        let n = u64::from(port.0);
        PortStats {
            rx_packets: n,
            rx_bytes: 10 * n,
            tx_packets: n + 1,
            tx_bytes: n + 2,
            rx_dropped: 3,
            ..PortStats::default()
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed() + Duration::from_secs(self.ahead.load(Ordering::SeqCst))
    }
}

/// A served bridge `br0` with its run directory. All of it goes when dropped.
pub struct FakeSwitch {
    pub backend: Arc<FakeBackend>,
    pub rundir: PathBuf,
    server: Option<BridgeServer>,
    runtime: Option<Runtime>,
}

impl FakeSwitch {
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique =
            format!("switchd-openflow-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let rundir = std::env::temp_dir().join(unique);
        std::fs::create_dir(&rundir).unwrap();

        let mut rules = FakeRules::new(1_000_000);
        let mut tables = Ofproto::new(BRIDGE, &mut rules);
        tables.add_normal(&mut rules, Duration::ZERO).unwrap();
        let tables = Mutex::new(Some((tables, rules)));
        let backend = Arc::new(FakeBackend {
            tables,
            start: Instant::now(),
            ahead: AtomicU64::new(0),
            flushed: Mutex::default(),
            shows_fragments: AtomicBool::default(),
        });
        let runtime = Runtime::new().unwrap();
        let server = {
            let _inside = runtime.enter();
            BridgeServer::start(Arc::clone(&backend), BRIDGE, &rundir.join("br0.mgmt")).unwrap()
        };
        Self { backend, rundir, server: Some(server), runtime: Some(runtime) }
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut Ofproto, &mut FakeRules) -> T) -> T {
        let mut tables = self.backend.tables.lock().unwrap();
        let (tables, rules) = tables.as_mut().expect("there is a bridge");
        f(tables, rules)
    }

    pub fn advance(&self, seconds: u64) {
        self.backend.ahead.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The connections that were to be forgotten since the last call.
    pub fn take_flushed(&self) -> Vec<Selection> {
        std::mem::take(&mut self.backend.flushed.lock().unwrap())
    }

    /// The bridge goes, but its server does not know yet.
    pub fn delete_bridge(&self) {
        *self.backend.tables.lock().unwrap() = None;
    }

    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// A connection that has said nothing.
    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.rundir.join("br0.mgmt")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Client { stream }
    }

    /// A connection after its HELLOs.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        client.send(&message(0, 1, &[]));
        assert_eq!(client.receive(), message(0, 0, &[]));
        client
    }
}

impl Drop for FakeSwitch {
    fn drop(&mut self) {
        self.server = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        std::fs::remove_dir_all(&self.rundir).unwrap();
    }
}

/// An OpenFlow 1.0 message.
pub fn message(kind: u8, xid: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, kind];
    bytes.extend((8 + body.len() as u16).to_be_bytes());
    bytes.extend(xid.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The other end of a connection, which knows bytes only.
pub struct Client {
    pub stream: UnixStream,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes.resize(u16::from_be_bytes([bytes[2], bytes[3]]).into(), 0);
        self.stream.read_exact(&mut bytes[8..]).unwrap();
        bytes
    }

    pub fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.send(request);
        self.receive()
    }

    /// Whether the other end has closed, after what is still to be read.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read_to_end(&mut Vec::new()) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}
