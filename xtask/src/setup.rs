//! Installs what is missing, by Debian's package names; asks first what is there, and never reinstalls.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;
use tests::python;

use crate::{
    bpf::{self, Compiler, Toolchain},
    cargo,
};

/// What the machine is to be set up for; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Building the project.
    Build,
    /// Running the tutorial.
    Demo,
    /// Running every test.
    Test,
}

/// A program or a module of Python that is used, and the package that brings it.
struct Tool {
    name: &'static str,
    package: &'static str,
    why: &'static str,
    purpose: Purpose,
}

const fn tool(purpose: Purpose, name: &'static str, package: &'static str, why: &'static str) -> Tool {
    Tool { name, package, why, purpose }
}

const TOOLS: &[Tool] = &[
    tool(Purpose::Demo, "ip", "iproute2", "makes namespaces and cables"),
    tool(Purpose::Demo, "ethtool", "ethtool", "shows what the switch sets on its ports"),
    tool(Purpose::Demo, "tcpdump", "tcpdump", "shows packets in the lab"),
    tool(Purpose::Test, "nc.openbsd", "netcat-openbsd", "moves data over TCP and UDP"),
    tool(Purpose::Test, "curl", "curl", "fetches a page through the switch"),
    tool(Purpose::Test, "iperf3", "iperf3", "measures TCP throughput"),
    tool(Purpose::Test, "ovs-ofctl", "openvswitch-common", "Open vSwitch's own clients, to be served too"),
    tool(Purpose::Test, "conntrack", "conntrack", "reads the kernel's tracker, which ours is compared with"),
    tool(Purpose::Test, "dnsmasq", "dnsmasq-base", "serves files over TFTP"),
    tool(Purpose::Test, "qemu-system-x86_64", "qemu-system-x86", "runs tests on a kernel of Debian's"),
    tool(Purpose::Test, "cpio", "cpio", "packs what that kernel starts with"),
    tool(Purpose::Test, "depmod", "kmod", "loads that kernel's modules"),
    tool(Purpose::Test, "c++", "g++", "compiles libFuzzer"),
    tool(Purpose::Test, "nft", "nftables", "switches the kernel's tracker on"),
];

const MODULES: &[Tool] = &[
    tool(Purpose::Demo, "scapy", "python3-scapy", "sends the tutorial's segments"),
    tool(Purpose::Test, "pyftpdlib", "python3-pyftpdlib", "serves files over FTP"),
];

/// Debian's compiler with a `core` for BPF.
const COMPILER: &[(&str, &str)] =
    &[("rustc-web", "compiles for BPF"), ("libstd-rust-web-dev-bpf", "Rust's core library for BPF")];

/// What bpf-linker is built from.
const LINKER: &[(&str, &str)] = &[
    ("llvm-22-dev", "LLVM, of which bpf-linker is made"),
    ("libpolly-22-dev", "a part of LLVM"),
    ("libzstd-dev", "needed by LLVM"),
    ("zlib1g-dev", "needed by LLVM"),
];

/// Sets the machine up, saying what is installed and why.
pub fn set_up(purpose: Purpose) -> Result<()> {
    let programs = TOOLS.iter().filter(|tool| tool.purpose <= purpose && !is_program(tool.name));
    let modules = MODULES.iter().filter(|tool| tool.purpose <= purpose && !python::has(tool.name));
    let mut missing: Vec<_> = programs.chain(modules).map(|tool| (tool.package, tool.why)).collect();
    if Compiler::find().is_none() {
        missing.extend(COMPILER);
    }
    let linker_missing = bpf::find_linker().is_none();
    if linker_missing {
        missing.extend(LINKER.iter().filter(|(package, _)| !is_installed(package)));
    }
    install(&missing)?;
    if linker_missing {
        install_linker()?;
    }
    // The proof that it was enough.
    Toolchain::find()?;
    Ok(())
}

fn install(missing: &[(&str, &str)]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(package, _)| *package).collect();
    if !is_debian() {
        // What is missing to build has a remedy of its own, which this names.
        Toolchain::find()?;
        bail!("missing, by the names of Debian's packages: {}", names.join(" "));
    }
    if !Uid::effective().is_root() {
        bail!("packages are missing; as root: apt-get install --no-install-recommends {}", names.join(" "));
    }
    for (package, why) in missing {
        println!("setup: installing {package}: {why}");
    }
    apt_get(&["update", "--quiet"])?;
    apt_get(&[&["install", "--yes", "--quiet", "--no-install-recommends"], &names[..]].concat())
}

fn apt_get(args: &[&str]) -> Result<()> {
    cargo::run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
        .with_context(|| format!("apt-get {}", args.join(" ")))
}

fn install_linker() -> Result<()> {
    println!("setup: installing bpf-linker: links the datapath for BPF; this takes a minute or two");
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    cargo::run(
        Command::new(program)
            .args(["install", "bpf-linker", "--version", "0.13.0"])
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", "/usr/lib/llvm-22"),
    )
    .context("cargo install bpf-linker")
}

/// Unpacks a package into a directory and does not install it.
pub fn unpack(package: &str, why: &str, root: &Path) -> Result<()> {
    if !is_debian() {
        bail!("missing, by the name of Debian's package: {package}");
    }
    println!("setup: unpacking {package}: {why}");
    fs::create_dir_all(root)?;
    // What old lists name may be there no longer: kernels are replaced every few weeks.
    apt_get(&["update", "--quiet"])?;
    let download = ["--quiet", "--option=APT::Sandbox::User=root", "download", package];
    cargo::run(Command::new("apt-get").args(download).current_dir(root)).context("apt-get download")?;
    for entry in fs::read_dir(root)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            cargo::run(Command::new("dpkg-deb").arg("--extract").args([&file, root]))?;
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Whether a program is in `PATH` or where Debian keeps the administrator's, which users' paths lack.
pub fn is_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(["/usr/sbin".into()]).any(|dir| dir.join(name).is_file())
}

/// Whether a package of Debian is installed.
fn is_installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// Whether packages are Debian's.
pub fn is_debian() -> bool {
    Path::new("/usr/bin/apt-get").exists()
        && fs::read_to_string("/etc/os-release")
            .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}
