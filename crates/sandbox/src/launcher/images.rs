//! Disk-backed `/tmp`: an ext4 file system of the asked size in a sparse file, one for each sandbox.
//!
//! The file has no name any more when the sandbox starts, and the loop device frees itself when the last mount of it
//! goes: whatever dies in whatever order, the kernel cleans up.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, StatxFlags, fstatfs, openat, seek, statx, unlinkat};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_set_flag, fsconfig_set_string, fsopen};

use crate::error::{At, Fault, Refusal, Step};
use crate::launcher::root::finish_mount;
use crate::sys;

pub(super) struct Images {
    /// The launcher's own; where files are made before they lose their names.
    directory: OwnedFd,
    mkfs: PathBuf,
    /// A freshly made file system of each size that was asked for; without a name.
    templates: HashMap<u64, File>,
    /// Mounted ahead of need, oldest first.
    ready: VecDeque<Image>,
    /// Size of the last one that was taken: the next is likely to be of the same.
    next: Option<u64>,
}

/// An empty file system.
pub(super) struct Image {
    /// Detached; to be mounted as somebody's `/tmp`.
    pub(super) mount: OwnedFd,
    size: u64,
    device: PathBuf,
}

/// Keeps the file system of an image that was handed out, to see later whether anything was ever written.
pub(super) struct Used {
    root: OwnedFd,
    size: u64,
    device: PathBuf,
    as_given: Traces,
}

/// Whatever is done in a file system leaves one of these different.
#[derive(PartialEq, Eq)]
struct Traces {
    /// Of the root: set by the kernel to the moment of the last change to it, and by nobody else.
    changed: (i64, u32),
    free_inodes: u64,
    free_blocks: u64,
    mode: u16,
}

impl Image {
    /// Separates what is handed out, with all that is to be done to it done, from what stays here.
    pub(super) fn hand_out(self) -> Result<(OwnedFd, Used), Fault> {
        let Self { mount, size, device } = self;
        let root = mount.try_clone().at(Step::Tmp, "its image")?;
        let as_given = Traces::of(&root).at(Step::Tmp, "its image")?;
        Ok((mount, Used { root, size, device, as_given }))
    }
}

impl Traces {
    fn of(root: &OwnedFd) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::CTIME | StatxFlags::MODE;
        let root_stat = statx(root, "", AtFlags::EMPTY_PATH, wanted)?;
        let whole = fstatfs(root)?;
        Ok(Self {
            changed: (root_stat.stx_ctime.tv_sec, root_stat.stx_ctime.tv_nsec),
            free_inodes: whole.f_ffree as u64,
            free_blocks: whole.f_bfree as u64,
            mode: root_stat.stx_mode,
        })
    }
}

/// Where distributions keep `mkfs.ext4`; the launcher has no search path.
const MKFS: [&str; 6] = [
    "/usr/sbin/mkfs.ext4",
    "/sbin/mkfs.ext4",
    "/usr/bin/mkfs.ext4",
    "/usr/local/sbin/mkfs.ext4",
    "/run/current-system/sw/bin/mkfs.ext4",
    "/bin/mkfs.ext4",
];

/// How many are made ahead of one size.
const READY_OF_ONE_SIZE: usize = 2;
/// How many may lie ready altogether, those that came back unused among them.
const READY: usize = 64;

/// Sizes remembered. Nobody uses so many; who asks for ever new ones pays for each.
const TEMPLATES: usize = 32;

/// The size that is asked for most often.
const USUAL_BYTES: u64 = 512 << 20;

/// Others may take a free loop device between the question and the use of the answer.
const TRIES: usize = 32;

impl Images {
    /// Checks that it can work.
    pub(super) fn prepare(directory: &OwnedFd) -> Result<Self, Refusal> {
        let refusal = |why: &dyn std::fmt::Display, remedy: &str| {
            let remedy =
                format!("{remedy}, or choose memory-backed /tmp (it counts against a function's memory)");
            Refusal::new("disk-backed /tmp", why, remedy)
        };
        let mkfs =
            find_mkfs().ok_or_else(|| refusal(&"mkfs.ext4 is not there", "Install the package e2fsprogs"))?;
        if let Err(error) = loop_device() {
            return Err(refusal(&format!("no loop device: {error}"), "Load the module: modprobe loop"));
        }
        let directory =
            directory.try_clone().map_err(|error| refusal(&error, "Raise the limit of open files"))?;
        let next = Some(image_size(USUAL_BYTES));
        Ok(Self { directory, mkfs, templates: HashMap::new(), ready: VecDeque::new(), next })
    }

    /// A new, empty file system in which `bytes` can be stored, detached.
    pub(super) fn take(&mut self, bytes: u64) -> Result<Image, Fault> {
        let size = image_size(bytes);
        self.next = Some(size);
        match self.ready.iter().position(|ready| ready.size == size).and_then(|at| self.ready.remove(at)) {
            Some(image) => Ok(image),
            None => self.make(size),
        }
    }

    /// Takes back what a sandbox held that is gone. Most functions never write to `/tmp`: such a file system is as good as
    /// new. Any other is dropped, and the kernel frees it.
    pub(super) fn give_back(&mut self, used: Used) {
        if self.ready.len() >= READY || Traces::of(&used.root).ok().as_ref() != Some(&used.as_given) {
            return;
        }
        // The file system is still the one that is mounted from this device, since `used` keeps it: this only makes a new
        // mount of it.
        if let Ok(mount) = mount(&used.device) {
            self.ready.push_back(Image { mount, size: used.size, device: used.device });
        }
    }

    /// Whether [`Images::restock`] has something to do.
    pub(super) fn wants_restocking(&self) -> bool {
        self.next.is_some()
    }

    /// Makes one ahead of need. For moments when nobody waits: it takes some milliseconds, more on a busy machine.
    pub(super) fn restock(&mut self) {
        let Some(size) = self.next.take() else { return };
        if self.ready.iter().filter(|ready| ready.size == size).count() >= READY_OF_ONE_SIZE {
            return;
        }
        // An error comes again, and is then told, when one is needed.
        if let Ok(image) = self.make(size) {
            self.ready.push_back(image);
            self.next = Some(size);
        }
        if self.ready.len() > READY {
            self.ready.pop_front();
        }
    }

    fn make(&mut self, size: u64) -> Result<Image, Fault> {
        let image = self.copy(size).at(Step::Tmp, "its image")?;
        let Device { path, _fd } = attach(&image)?;
        let mount = mount(&path).at(Step::Tmp, path.to_string_lossy())?;
        // The device is let go of here: the mount holds it now.
        Ok(Image { mount, size, device: path })
    }

    /// A sparse copy of the template of this size.
    fn copy(&mut self, size: u64) -> io::Result<File> {
        if !self.templates.contains_key(&size) {
            let template = self.format(size)?;
            if self.templates.len() >= TEMPLATES {
                self.templates.clear();
            }
            self.templates.insert(size, template);
        }
        let image = nameless(&self.directory, "image")?;
        image.set_len(size)?;
        copy_data(&self.templates[&size], &image)?;
        Ok(image)
    }

    fn format(&self, size: u64) -> io::Result<File> {
        let template = nameless(&self.directory, "template")?;
        template.set_len(size)?;
        let mut command = Command::new(&self.mkfs);
        command
            .args(["-q", "-F", "-m", "0", "-b", "4096", "-i", "16384", "-I", "256"])
            // Nothing here needs to survive anything.
            .args(["-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard"])
            .arg("/proc/self/fd/3")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if !sys::spawn_with_fd_3(&mut command, template.try_clone()?.into())?.wait()?.success() {
            return Err(io::Error::other("mkfs.ext4 failed"));
        }
        Ok(template)
    }
}

/// The file system's own tables take about a sixtieth; what was asked for should fit beside them.
fn image_size(bytes: u64) -> u64 {
    const BLOCK: u64 = 4096;
    (bytes + bytes / 32 + (1 << 20)).div_ceil(BLOCK) * BLOCK
}

pub(crate) fn find_mkfs() -> Option<PathBuf> {
    MKFS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// A file that has no name any more. One that a predecessor had no time to take the name from is removed.
fn nameless(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let _ = unlinkat(directory, name, AtFlags::empty());
    let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    unlinkat(directory, name, AtFlags::empty())?;
    Ok(file.into())
}

/// Copies the parts of a sparse file that hold data.
fn copy_data(from: &File, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    loop {
        at = match seek(from, SeekFrom::Data(at)) {
            Ok(at) => at,
            // No data after this.
            Err(Errno::NXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(from, SeekFrom::Hole(at))?;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            from.read_exact_at(&mut buffer[..length], at)?;
            to.write_all_at(&buffer[..length], at)?;
            at += length as u64;
        }
    }
}

struct Device {
    path: PathBuf,
    /// Keeps it configured until it is mounted.
    _fd: OwnedFd,
}

/// The path of a loop device that is free at this moment.
pub(crate) fn loop_device() -> io::Result<PathBuf> {
    let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok(PathBuf::from(format!("/dev/loop{}", sys::free_loop_device(&control)?)))
}

fn attach(image: &File) -> Result<Device, Fault> {
    let mut tries = 0;
    loop {
        let path = loop_device().at(Step::Tmp, "/dev/loop-control")?;
        let configured = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|fd| sys::configure_loop_device(&fd, image.as_fd()).map(|()| fd));
        match configured {
            Ok(fd) => return Ok(Device { path, _fd: fd }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < TRIES => tries += 1,
            Err(error) => return Err(Fault::step(Step::Tmp, path.to_string_lossy(), &error)),
        }
    }
}

fn mount(device: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", device)?;
    // Unused tables stay unwritten, and nobody waits for the disk: the content dies with the sandbox anyway.
    for flag in ["noinit_itable", "nobarrier", "nodiscard"] {
        fsconfig_set_flag(&context, flag)?;
    }
    let mount = finish_mount(&context)?;
    match unlinkat(&mount, "lost+found", AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(mount),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_data_is_copied() {
        let path = std::env::temp_dir().join(format!("martlet-image-test-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("directory");
        let directory = OwnedFd::from(File::open(&path).expect("directory"));
        let from = nameless(&directory, "from").expect("file");
        from.set_len(64 << 20).expect("size");
        from.write_all_at(b"head", 0).expect("write");
        from.write_all_at(&[7; 100_000], 32 << 20).expect("write");
        let to = nameless(&directory, "to").expect("file");
        to.set_len(64 << 20).expect("size");
        copy_data(&from, &to).expect("copy");
        let mut bytes = [0; 100_000];
        to.read_exact_at(&mut bytes, 32 << 20).expect("read");
        assert_eq!(bytes, [7; 100_000]);
        assert!(std::os::unix::fs::MetadataExt::blocks(&to.metadata().expect("metadata")) * 512 < 1 << 20);
        std::fs::remove_dir(&path).expect("nothing is left in it");
    }

    #[test]
    fn an_image_has_room_for_the_file_system_itself() {
        assert!(image_size(512 << 20) > 512 << 20);
        assert_eq!(image_size(513 << 20) % 4096, 0);
    }
}
