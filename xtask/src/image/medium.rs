//! The image: an ISO 9660 file system that BIOS and UEFI boot from CD and from stick.
//!
//! | what | for |
//! |---|---|
//! | GRUB for the BIOS, as the boot image of the CD, and in the first sector what loads it from a stick | BIOS |
//! | a FAT file system with GRUB for UEFI, as the other boot image, and as a partition | UEFI |
//! | the menu, kickstart and the modules, as files | GRUB |
//!
//! GRUB's own tool for this, grub-mkrescue, makes names, serial numbers and dates from the clock. So here each part is
//! made by the tool that it uses, and told what to write. Both GRUBs have all their modules in them and look for a file
//! whose name says what it is on the medium, so they find the medium that they are from.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, FileTimes};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::firmware::Flash;
use super::menu::DIR;
use super::read;
use crate::packages;
use crate::qemu::Machine;

/// Where Debian's packages have GRUB's parts.
const GRUB_BIOS: &str = "/usr/lib/grub/i386-pc";
const GRUB_UEFI: &str = "/usr/lib/grub/x86_64-efi";
/// What the packages are called.
const PACKAGES: [&str; 5] = ["grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "xorriso", "mtools"];

/// GRUB's modules in both of its forms.
const MODULES: &[&str] = &[
    "normal",
    "configfile",
    "search",
    "search_fs_file",
    "iso9660",
    "fat",
    "part_gpt",
    "part_msdos",
    "multiboot",
    "multiboot2",
    "serial",
    "terminal",
    "echo",
    "test",
    "minicmd",
    "reboot",
    "halt",
    "all_video",
    "video",
    "relocator",
    "boot",
];
const MODULES_BIOS: &[&str] = &["biosdisk", "vbe", "vga"];
const MODULES_UEFI: &[&str] = &["efi_gop", "efi_uga"];

/// Size of the FAT file system: GRUB for UEFI, as a diskette of 1.44 MB.
const FAT_KIB: &str = "1440";
/// The serial number of the FAT file system.
const FAT_SERIAL: &str = "4d52434e";
const VOLUME: &str = "MARCONA";

/// What the image is to a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// In a drive.
    Cd,
    /// In a USB port.
    Usb,
}

impl Medium {
    /// A PC with the image in it.
    pub fn machine(self, image: &Path, flash: Option<&Flash>) -> Machine {
        let drive = format!("if=none,id=medium,format=raw,readonly=on,file={}", image.display());
        let device = match self {
            Self::Cd => "ide-cd,drive=medium,bootindex=0",
            Self::Usb => "usb-storage,drive=medium,bootindex=0",
        };
        let mut options = vec!["-drive".to_owned(), drive];
        if self == Self::Usb {
            options.extend(["-device", "qemu-xhci"].map(str::to_owned));
        }
        options.extend(["-device".to_owned(), device.to_owned()]);
        options.extend(flash.into_iter().flat_map(Flash::options));
        let mut machine = Machine::of_medium(options);
        machine.board = "q35".to_owned();
        machine.has_screen = true;
        machine
    }
}

/// The programs that make the image.
pub struct Tools {
    mkimage: PathBuf,
    xorriso: PathBuf,
    mformat: PathBuf,
    mmd: PathBuf,
    mcopy: PathBuf,
}

impl Tools {
    /// Looks for them, and installs packages for what is missing.
    pub fn find() -> Result<Self> {
        let parts = [GRUB_BIOS, GRUB_UEFI].map(|dir| Path::new(dir).join("moddep.lst"));
        if parts.iter().any(|part| !part.is_file()) {
            packages::install("GRUB", &PACKAGES)?;
        }
        let tool = |name| packages::program(name, &PACKAGES);
        Ok(Self {
            mkimage: tool("grub-mkimage")?,
            xorriso: tool("xorriso")?,
            mformat: tool("mformat")?,
            mmd: tool("mmd")?,
            mcopy: tool("mcopy")?,
        })
    }
}

/// A file on the medium.
pub struct Item {
    /// Its path there, without a slash in front.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Item {
    /// One with what is in this file here.
    pub fn of_file(path: String, from: &Path) -> Result<Self> {
        Ok(Self { path, bytes: read(from)? })
    }
}

/// Makes the image with these files, and `menu` for GRUB; all of it says that it was made at `time`, seconds since 1970.
pub fn make(tools: &Tools, items: Vec<Item>, menu: &str, time: i64) -> Result<Vec<u8>> {
    let dir = tempfile::Builder::new().prefix("marcona-image").tempdir()?;
    let work = Work { tools, dir: dir.path(), time };
    let mut hasher = DefaultHasher::new();
    menu.hash(&mut hasher);
    items.iter().for_each(|item| item.bytes.hash(&mut hasher));
    let mut files: Vec<(String, Vec<u8>)> = items.into_iter().map(|Item { path, bytes }| (path, bytes)).collect();
    let mark = format!("{DIR}/{:016x}.id", hasher.finish());
    files.push((mark.clone(), Vec::new()));
    files.push(("boot/grub/grub.cfg".to_owned(), menu.as_bytes().to_vec()));
    files.push(("boot/grub/bios.img".to_owned(), work.grub("i386-pc-eltorito", GRUB_BIOS, MODULES_BIOS, &mark)?));
    files.push(("boot/grub/efi.img".to_owned(), work.fat(&work.grub("x86_64-efi", GRUB_UEFI, MODULES_UEFI, &mark)?)?));
    work.iso(&files)
}

/// A place to work in.
struct Work<'a> {
    tools: &'a Tools,
    dir: &'a Path,
    time: i64,
}

impl Work<'_> {
    /// GRUB with its modules, which reads the menu of the medium with the file `mark`.
    fn grub(&self, format: &str, parts: &str, modules: &[&str], mark: &str) -> Result<Vec<u8>> {
        let start = format!(
            "search --no-floppy --file --set=root /{mark}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
        );
        let (config, output) = (self.dir.join("start.cfg"), self.dir.join(format));
        fs::write(&config, start)?;
        let mut command = self.command(&self.tools.mkimage);
        command.args(["--format", format, "--directory", parts, "--prefix", "/boot/grub"]);
        command.arg("--config").arg(&config).arg("--output").arg(&output);
        execute(command.args(MODULES).args(modules))?;
        read(&output)
    }

    /// A FAT file system with GRUB where UEFI looks for it.
    fn fat(&self, grub: &[u8]) -> Result<Vec<u8>> {
        let (program, image) = (self.dir.join("BOOTX64.EFI"), self.dir.join("efi.img"));
        self.write(&program, grub)?;
        let run = |tool: &Path, options: &[&str], rest: &[&str]| {
            execute(self.command(tool).env("MTOOLSRC", "/dev/null").args(options).arg("-i").arg(&image).args(rest))
        };
        run(&self.tools.mformat, &["-C", "-f", FAT_KIB, "-N", FAT_SERIAL, "-v", VOLUME], &["::"])?;
        run(&self.tools.mmd, &[], &["::/EFI", "::/EFI/BOOT"])?;
        run(&self.tools.mcopy, &["-m"], &[&program.display().to_string(), "::/EFI/BOOT/"])?;
        read(&image)
    }

    /// A tool that takes the time of the image for now.
    fn command(&self, tool: &Path) -> Command {
        let mut command = Command::new(tool);
        command.env("TZ", "UTC").env("SOURCE_DATE_EPOCH", self.time.to_string());
        command
    }

    /// The file system of the medium, with these files.
    fn iso(&self, files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
        let tree = self.dir.join("tree");
        for (name, bytes) in files {
            let file = tree.join(name);
            fs::create_dir_all(file.parent().context("files are in folders")?)?;
            self.write(&file, bytes)?;
        }
        let output = self.dir.join("image.iso");
        let mut command = self.command(&self.tools.xorriso);
        command.args(["-as", "mkisofs", "-quiet", "-r", "-V", VOLUME]);
        command.args(["--set_all_file_dates", &format!("={}", self.time)]);
        command.args(["-uid", "0", "-gid", "0"]);
        command.arg("--grub2-mbr").arg(Path::new(GRUB_BIOS).join("boot_hybrid.img"));
        command.args(["--protective-msdos-label", "-partition_offset", "0"]);
        command.args(["-c", "boot/boot.cat", "-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4"]);
        command.args(["-boot-info-table", "--grub2-boot-info"]);
        command.args(["--efi-boot", "boot/grub/efi.img", "-efi-boot-part", "--efi-boot-image"]);
        command.arg("-o").arg(&output).arg(&tree);
        execute(&mut command)?;
        read(&output)
    }

    /// Writes a file that is as old as all others.
    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        fs::write(file, bytes)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.time.try_into()?);
        File::options().write(true).open(file)?.set_times(FileTimes::new().set_accessed(time).set_modified(time))?;
        Ok(())
    }
}

/// Runs a tool; what it says is only of interest if it fails.
fn execute(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
