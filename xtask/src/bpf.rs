//! How the BPF object is built: finds a toolchain that can compile for BPF and runs Cargo with it.
//!
//! Shared by `cargo xtask build-ebpf` and, through `#[path]`, by switchd's build script; hence only `std`.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

/// The BPF target of little-endian hosts.
pub const TARGET: &str = "bpfel-unknown-none";
/// The binary of package `switchd-ebpf` that holds the kernel's entry points.
pub const OBJECT: &str = "switchd-datapath";
/// Debian's compiler, named by path because a rustup proxy may come first in `PATH`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Why there is no BPF object.
#[derive(Debug)]
pub enum Error {
    /// No compiler at hand has a `core` for BPF.
    NoCompiler,
    /// `bpf-linker` is neither in `PATH` nor in Cargo's own bin directory.
    NoLinker,
    /// Cargo could not be started.
    Start(io::Error),
    /// Cargo ran and reported the error itself.
    Failed(ExitStatus),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCompiler => f.write_str(
                "no Rust compiler for BPF: `cargo xtask setup` installs Debian's (rustc-web, \
                 libstd-rust-web-dev-bpf); elsewhere `rustup toolchain install nightly --component rust-src`",
            ),
            Self::NoLinker => f.write_str(
                "bpf-linker is missing: `cargo xtask setup` installs it on Debian; \
                 elsewhere `cargo install bpf-linker`",
            ),
            Self::Start(error) => write!(f, "cannot start cargo for the BPF object: {error}"),
            Self::Failed(status) => write!(f, "the build of the BPF object failed ({status})"),
        }
    }
}

impl std::error::Error for Error {}

/// Where `core` for BPF comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compiler {
    /// rustup's nightly builds `core` from its rust-src component.
    Nightly,
    /// Debian's stable compiler brings a prebuilt `core`; unstable features need `RUSTC_BOOTSTRAP`.
    Debian,
}

impl Compiler {
    /// The compiler to use; nightly, the usual way of the field, is preferred.
    pub fn find() -> Option<Self> {
        if has_nightly_source() {
            Some(Self::Nightly)
        } else if has_debian_core() {
            Some(Self::Debian)
        } else {
            None
        }
    }
}

/// Everything needed to compile and link for BPF.
#[derive(Debug)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// Looks for a compiler and a linker, changing nothing.
    pub fn find() -> Result<Self, Error> {
        let compiler = Compiler::find().ok_or(Error::NoCompiler)?;
        let linker = find_linker().ok_or(Error::NoLinker)?;
        Ok(Self { compiler, linker })
    }

    /// Builds the object for a kernel of architecture `arch` (as in `target_arch`) and returns its path.
    ///
    /// `target_dir` must not be one that a waiting Cargo has locked.
    pub fn build(&self, workspace: &Path, target_dir: &Path, arch: &str) -> Result<PathBuf, Error> {
        let mut command = self.cargo();
        command
            .current_dir(workspace)
            .args(["build", "--package", "switchd-ebpf", "--bin", OBJECT, "--features", "bpf"])
            .args(["--profile", "bpf", "--target", TARGET, "--target-dir"])
            .arg(target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(arch))
            // Under `cargo clippy` this names clippy's driver, which must not compile the object.
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        if self.compiler == Compiler::Nightly {
            command.args(["-Z", "build-std=core"]);
        }
        let status = command.status().map_err(Error::Start)?;
        if status.success() {
            Ok(target_dir.join(TARGET).join("bpf").join(OBJECT))
        } else {
            Err(Error::Failed(status))
        }
    }

    fn cargo(&self) -> Command {
        match self.compiler {
            Compiler::Nightly => {
                let mut command = Command::new("rustup");
                // `rustup run` chooses the toolchain; what the calling Cargo says of its own would win.
                command.args(["run", "nightly", "cargo"]).env_remove("RUSTC").env_remove("CARGO");
                command
            }
            Compiler::Debian => {
                let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    /// Flags separated by U+001F, the form that survives blanks in a path.
    fn rustflags(&self, arch: &str) -> String {
        [
            format!("-Clinker={}", self.linker.display()),
            // BTF describes the maps, and names functions in the verifier's log.
            "-Clink-arg=--btf".into(),
            // Copies and fills of known size become word-wide stores instead of calls of byte-wise loops.
            "-Clink-arg=--disable-expand-memcpy-in-order".into(),
            "-Cdebuginfo=2".into(),
            // The third instruction set has atomics that return a value.
            "-Ctarget-cpu=v3".into(),
            format!("--cfg=bpf_target_arch=\"{arch}\""),
        ]
        .join("\u{1f}")
    }
}

/// The linker's path: Cargo's bin directory counts even where it is not in `PATH`.
pub fn find_linker() -> Option<PathBuf> {
    let cargo_home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|dir| dir.join("bpf-linker"))
        .find(|file| file.is_file())
}

fn has_nightly_source() -> bool {
    let mut rustc = Command::new("rustup");
    // A mere question must not download a toolchain.
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]).env("RUSTUP_AUTO_INSTALL", "0");
    answer(&mut rustc).is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

fn has_debian_core() -> bool {
    let mut rustc = Command::new(DEBIAN_RUSTC);
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    answer(&mut rustc).is_some_and(|libdir| libdir.is_dir())
}

/// The path that a command prints, if it runs and succeeds.
fn answer(command: &mut Command) -> Option<PathBuf> {
    let output = command.stderr(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}
