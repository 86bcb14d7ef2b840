//! End-to-end tests on another kernel: Debian's stock one, in an emulated machine.
//!
//! The guest sees this machine's files as they are, and keeps what it writes to itself: so the tests that were built here
//! run there, with all that they call. It has no network.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{cargo, ovs, setup, setup::Purpose};

/// Depends on the kernel of the release.
const KERNEL: &str = "linux-image-amd64";
/// What the guest starts with.
const SHELL: &str = "busybox-static";
/// The modules that it needs to see the files.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The tests that are run if none are named: a switch that loads, tracks connections row by row, carries real ones with
/// frames of any size, and leaves nothing behind. Emulation is slow: each takes some twenty seconds.
const USUAL: [(&str, &str); 4] = [
    ("tutorial", "every_row"),
    ("tcp", "ipv4_payload_arrives_unchanged"),
    ("odd_packets", "real_sockets_with_jumbo_frames"),
    ("daemon", "killed_it_leaves_nothing_that_keeps_the_next_one_from_working"),
];
/// What a test says that knows none by the name it was given.
const NOTHING: &str = "running 0 tests";
/// What the guest says at its end, before an exit code.
const END: &str = "guest: exit code ";
/// A guest that runs for longer has hung.
const LIMIT: Duration = Duration::from_secs(3600);

/// Runs tests, by the names of their files, or the usual ones.
pub fn run(tests: &[String]) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        println!("guest: left out, as it is known for x86-64 only");
        return Ok(());
    }
    setup::set_up(Purpose::Test)?;
    cargo::build_debug()?;
    let executables = executables()?;
    let named = tests.iter().map(|test| (test.as_str(), ""));
    let wanted: Vec<_> = if tests.is_empty() { USUAL.to_vec() } else { named.collect() };
    let mut commands = Vec::new();
    for (test, filter) in wanted {
        let path = executables.get(test).with_context(|| format!("there is no end-to-end test {test}"))?;
        commands.push(format!("{} {filter} || failed=1", quoted(path)?));
    }
    let release = Release::find()?;
    println!("guest: running on Linux {}", release.version);
    boot(&release, &commands)
}

/// The executables of the end-to-end tests, by their names.
fn executables() -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo::command(&["test", "--package=tests", "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let mut executables = BTreeMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).context("what cargo says of the tests")?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            executables.insert(name.to_owned(), path.into());
        }
    }
    Ok(executables)
}

/// A path as a word of the shell's.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    ensure!(!text.contains('\''), "{text} has a quotation mark");
    Ok(format!("'{text}'"))
}

/// A kernel, and what is booted with it.
struct Release {
    /// Where its package was unpacked.
    root: PathBuf,
    version: String,
}

impl Release {
    /// Unpacks it below the target directory, unless that was done before.
    fn find() -> Result<Self> {
        let root = cargo::target_dir()?.join("guest");
        if !root.join("bin/busybox").is_file() {
            setup::unpack(SHELL, "what an emulated machine starts with", &root)?;
        }
        if Self::versions(&root)?.is_empty() {
            setup::unpack(&image()?, "Debian's kernel, to test the switch on it", &root)?;
        }
        let version = Self::versions(&root)?.pop().context("the package has no kernel")?;
        let release = Self { root, version };
        if !release.dependencies().is_file() {
            // What the package does when it is installed.
            cargo::run(
                Command::new("/usr/sbin/depmod").arg("--basedir").arg(&release.root).arg(&release.version),
            )?;
        }
        Ok(release)
    }

    fn versions(root: &Path) -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(root.join("lib/modules")) else { return Ok(Vec::new()) };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<_>>()
    }

    fn kernel(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.version))
    }

    fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.version)
    }

    /// The file that says which modules need which.
    fn dependencies(&self) -> PathBuf {
        self.modules().join("modules.dep")
    }

    /// The files of the modules that must be loaded, in an order in which they can be.
    fn load_order(&self) -> Result<Vec<String>> {
        let dependencies = fs::read_to_string(self.dependencies())?;
        let mut order: Vec<String> = Vec::new();
        for module in MODULES {
            let file = format!("/{module}.ko");
            let is_it = |path: &str| path.contains(&file);
            let line = dependencies.lines().filter_map(|line| line.split_once(':'));
            let (own, needed) = line
                .into_iter()
                .find(|(own, _)| is_it(own))
                .with_context(|| format!("no module {module}"))?;
            // The nearest come first.
            for path in needed.split_whitespace().rev().chain([own]) {
                if !order.iter().any(|known| known == path) {
                    order.push(path.to_owned());
                }
            }
        }
        Ok(order)
    }
}

/// The package of the kernel.
fn image() -> Result<String> {
    let output = Command::new("apt-cache").args(["depends", KERNEL]).output().context("apt-cache")?;
    let text = String::from_utf8(output.stdout)?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    Ok(format!("linux-image-{}", name.with_context(|| format!("{KERNEL} depends on no kernel"))?))
}

/// Boots the kernel and runs commands of the shell, which set `failed` if they do.
fn boot(release: &Release, commands: &[String]) -> Result<()> {
    let image = initramfs(release, commands)?;
    let mut guest = tests::process::command("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "3G",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"])
        .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
        .arg("-kernel")
        .arg(release.kernel())
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu")?;
    let output = BufReader::new(guest.stdout.take().context("no output")?);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || output.split(b'\n').map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let deadline = Instant::now() + LIMIT;
    let (mut code, mut idle) = (None, false);
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        println!("{line}");
        idle |= line == NOTHING;
        code = line.strip_prefix(END).map(str::to_owned).or(code);
    }
    // It has ended, or hangs.
    guest.kill()?;
    guest.wait()?;
    match code.as_deref() {
        Some("0") if idle => bail!("some of the tests that were named are none"),
        Some("0") => Ok(()),
        Some(_) => bail!("tests failed on Linux {}", release.version),
        None => bail!("the guest did not come to its end"),
    }
}

/// Makes what the kernel starts: it loads the modules and sees this machine's files, under a layer for what it writes.
fn initramfs(release: &Release, commands: &[String]) -> Result<PathBuf> {
    let root = release.root.join("initramfs");
    let _ = fs::remove_dir_all(&root);
    for dir in ["bin", "modules", "proc", "lower", "layer", "new"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::copy(release.root.join("bin/busybox"), root.join("bin/busybox"))?;
    let mut loads = String::new();
    for path in release.load_order()? {
        let file = path.rsplit('/').next().unwrap_or(&path);
        fs::copy(release.modules().join(&path), root.join("modules").join(file))?;
        loads += &format!("insmod /modules/{file}\n");
    }
    let version = &release.version;
    let modules = quoted(Path::new(&format!("/lower{}", release.modules().canonicalize()?.display())))?;
    // Not this machine's: what users put there for themselves may take its time.
    let mut path = String::new();
    for dir in ovs::programs()? {
        path += &format!("{}:", quoted(&dir.canonicalize()?)?);
    }
    let commands = [
        format!("export HOME=/root PATH={path}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        format!("cd {}", quoted(&cargo::workspace().join("tests").canonicalize()?)?),
        "failed=0".to_owned(),
        commands.join("\n"),
        format!("echo; echo {END}$failed"),
        "echo o > /proc/sysrq-trigger; while :; do :; done".to_owned(),
    ];
    let init = format!(
        "#!/bin/busybox sh
set -e
PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
{loads}mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=262144 root /lower
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work root /new
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/lib/modules/{version}
mount -o bind {modules} /new/lib/modules/{version}
cp /run.sh /new/run.sh
exec switch_root /new /bin/bash /run.sh
"
    );
    fs::write(root.join("run.sh"), commands.join("\n"))?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let image = release.root.join("initramfs.cpio");
    let pack = "find . | cpio --quiet --create --format=newc";
    cargo::run(Command::new("sh").args(["-c", pack]).current_dir(&root).stdout(fs::File::create(&image)?))?;
    Ok(image)
}
