//! The directory of a zip file, read strictly: a list of entries with the place of their bytes.
//!
//! Only what the format needs is read, and each fact that it states twice must be the same both times. The
//! archive's own word on sizes is used to refuse it early, never to trust it: [`Entry::inflate`] counts.
//!
//! The records (APPNOTE 4.3): local headers with data, then the central directory, then for large archives a
//! zip64 end record and its locator, then the end record. All numbers are little-endian.

use super::error::{EntryName, PackageError};
use martlet_model::limits;

const END: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: usize = 22;
const ZIP64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const ZIP64_LOCATOR_BYTES: usize = 20;
const ZIP64_END: [u8; 4] = *b"PK\x06\x06";
const ZIP64_END_BYTES: usize = 56;
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const CENTRAL_BYTES: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
const ZIP64_EXTRA: u16 = 1;
const LONGEST_COMMENT: usize = u16::MAX as usize;

/// How an entry's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Stored,
    Deflated,
}

/// One entry of the directory. Its name is not judged yet, and its bytes have not been looked at.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// The name as it stands in the archive.
    pub(crate) raw_name: &'a [u8],
    /// Unix type and permission bits; 0 when the archive has none.
    pub(crate) unix_mode: u32,
    pub(crate) method: Method,
    pub(crate) crc32: u32,
    /// The compressed bytes.
    pub(crate) data: &'a [u8],
    /// How many bytes the directory says that there are after inflating.
    pub(crate) unpacked_bytes: u64,
}

impl Entry<'_> {
    /// The name, printable.
    pub(crate) fn shown(&self) -> EntryName {
        EntryName::new(self.raw_name)
    }
}

/// Reads little-endian numbers off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    }
}

/// Where the central directory lies and how many entries it has.
struct Directory {
    /// Bytes before the archive proper, as in a self-extracting file; every offset counts from behind them.
    prefix: usize,
    start: usize,
    end: usize,
    entries: u64,
}

/// Reads the directory of `zip`: every entry, in the directory's order.
///
/// # Errors
/// The first thing that is wrong. Entries' names are only judged as far as both of their headers agree.
pub(crate) fn read(zip: &[u8]) -> Result<Vec<Entry<'_>>, PackageError> {
    if zip.len() > limits::ZIP_BYTES {
        return Err(PackageError::ZipTooLarge { bytes: zip.len() as u64, limit: limits::ZIP_BYTES as u64 });
    }
    let directory = find_directory(zip)?;
    if directory.entries == 0 {
        return Err(PackageError::Empty);
    }
    if directory.entries > limits::PACKAGE_ENTRIES as u64 {
        return Err(PackageError::TooManyEntries {
            entries: directory.entries,
            limit: limits::PACKAGE_ENTRIES,
        });
    }
    let mut central = Fields(&zip[directory.start..directory.end]);
    let mut entries = Vec::new();
    let mut places = Vec::new();
    let mut unpacked: u64 = 0;
    for _ in 0..directory.entries {
        let (entry, place) = read_entry(zip, &directory, &mut central)?;
        unpacked = unpacked.saturating_add(entry.unpacked_bytes);
        if unpacked > limits::UNPACKED_BYTES {
            return Err(PackageError::UnpackedTooLarge { limit: limits::UNPACKED_BYTES });
        }
        places.push((place, entries.len()));
        entries.push(entry);
    }
    if !central.0.is_empty() {
        return Err(PackageError::Directory("it has more bytes than its entries need"));
    }
    refuse_overlaps(&entries, places)?;
    Ok(entries)
}

fn find_directory(zip: &[u8]) -> Result<Directory, PackageError> {
    let (end, trailing) = find_end(zip).ok_or(PackageError::NotAZip)?;
    if trailing > 0 {
        return Err(PackageError::TrailingData { bytes: trailing as u64 });
    }
    let broken = PackageError::Directory;
    let mut fields = Fields(&zip[end + END.len()..]);
    let (disk, start_disk) = (fields.u16(), fields.u16());
    let (entries_here, entries) = (fields.u16(), fields.u16());
    let (size, offset) = (fields.u32(), fields.u32());
    let (Some(disk), Some(start_disk), Some(entries_here), Some(entries), Some(size), Some(offset)) =
        (disk, start_disk, entries_here, entries, size, offset)
    else {
        return Err(PackageError::NotAZip);
    };
    let zip64 = find_zip64(zip, end)?;
    let (behind, entries, size, offset) = match zip64 {
        None => {
            if disk != 0 || start_disk != 0 || entries_here != entries {
                return Err(PackageError::MultiPart);
            }
            (end, u64::from(entries), u64::from(size), u64::from(offset))
        }
        Some(wide) => {
            let same = |narrow: u64, wide: u64, full: u64| narrow == wide || narrow == full;
            if !same(entries.into(), wide.entries, u16::MAX.into())
                || !same(entries_here.into(), wide.entries, u16::MAX.into())
                || !same(size.into(), wide.size, u32::MAX.into())
                || !same(offset.into(), wide.offset, u32::MAX.into())
            {
                return Err(broken("its zip64 record says otherwise than its end record"));
            }
            (wide.at, wide.entries, wide.size, wide.offset)
        }
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= behind);
    let Some(start) = size.map(|size| behind - size) else {
        return Err(broken("it would begin before the file does"));
    };
    let prefix = usize::try_from(offset).ok().and_then(|offset| start.checked_sub(offset));
    let Some(prefix) = prefix else {
        return Err(broken("it does not end where the end record begins"));
    };
    Ok(Directory { prefix, start, end: behind, entries })
}

/// The place of the end record, and how many bytes stand behind its comment. Of several candidates the last
/// one whose comment ends with the file counts.
fn find_end(zip: &[u8]) -> Option<(usize, usize)> {
    let last = zip.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(LONGEST_COMMENT);
    let mut with_trailing = None;
    for at in (first..=last).rev() {
        if !zip[at..].starts_with(&END) {
            continue;
        }
        let comment = usize::from(u16::from_le_bytes([zip[at + 20], zip[at + 21]]));
        match zip.len().checked_sub(at + END_BYTES + comment) {
            Some(0) => return Some((at, 0)),
            Some(trailing) => with_trailing = with_trailing.or(Some((at, trailing))),
            None => {}
        }
    }
    with_trailing
}

struct Zip64 {
    at: usize,
    entries: u64,
    size: u64,
    offset: u64,
}

fn find_zip64(zip: &[u8], end: usize) -> Result<Option<Zip64>, PackageError> {
    let Some(locator) = end.checked_sub(ZIP64_LOCATOR_BYTES) else { return Ok(None) };
    if !zip[locator..].starts_with(&ZIP64_LOCATOR) {
        return Ok(None);
    }
    let broken = || PackageError::Directory("its zip64 record is not where it should be");
    // Writers put nothing between record and locator, so it is found there and not by its stated offset.
    let at = locator.checked_sub(ZIP64_END_BYTES).ok_or_else(broken)?;
    let mut fields = Fields(&zip[at..locator]);
    if fields.take(4) != Some(&ZIP64_END) {
        return Err(broken());
    }
    let record = (|| {
        let size_of_rest = fields.u64()?;
        let _versions = fields.u32()?;
        let disks = [fields.u32()?, fields.u32()?];
        let entries_here = fields.u64()?;
        Some((size_of_rest, disks, entries_here, fields.u64()?, fields.u64()?, fields.u64()?))
    })();
    let Some((size_of_rest, disks, entries_here, entries, size, offset)) = record else {
        return Err(broken());
    };
    if size_of_rest != (ZIP64_END_BYTES - 12) as u64 {
        return Err(broken());
    }
    if disks != [0, 0] || entries_here != entries {
        return Err(PackageError::MultiPart);
    }
    Ok(Some(Zip64 { at, entries, size, offset }))
}

/// The place of an entry's local header and of the byte behind its data.
type Place = (usize, usize);

fn read_entry<'a>(
    zip: &'a [u8],
    directory: &Directory,
    central: &mut Fields<'a>,
) -> Result<(Entry<'a>, Place), PackageError> {
    let cut = || PackageError::Directory("it is cut short");
    let mut fields = Fields(central.take(CENTRAL_BYTES).ok_or_else(cut)?);
    if fields.take(4) != Some(&CENTRAL) {
        return Err(PackageError::Directory("an entry does not begin as one"));
    }
    let header = (|| {
        let _versions = fields.u32()?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let _modified = fields.u32()?;
        let crc32 = fields.u32()?;
        let (packed, unpacked) = (fields.u32()?, fields.u32()?);
        let lengths = [fields.u16()?, fields.u16()?, fields.u16()?];
        let disk = fields.u16()?;
        let _internal = fields.u16()?;
        let (external, offset) = (fields.u32()?, fields.u32()?);
        Some((flags, method, crc32, packed, unpacked, lengths, disk, external, offset))
    })();
    let Some((flags, method, crc32, packed, unpacked, lengths, disk, external, offset)) = header else {
        return Err(cut());
    };
    let [name, extra, comment] = lengths.map(usize::from);
    let raw_name = central.take(name).ok_or_else(cut)?;
    let extra = central.take(extra).ok_or_else(cut)?;
    central.take(comment).ok_or_else(cut)?;

    let shown = || EntryName::new(raw_name);
    if disk != 0 && disk != u16::MAX {
        return Err(PackageError::MultiPart);
    }
    // Bit 0: encrypted; bit 6: strongly; bit 13: the headers are, too.
    if flags & (1 | 1 << 6 | 1 << 13) != 0 {
        return Err(PackageError::Encrypted(shown()));
    }
    let wide = widen(packed, unpacked, offset, extra)
        .ok_or_else(|| PackageError::Header(shown(), "its zip64 sizes are missing"))?;
    let local = read_local(zip, directory, wide.offset, raw_name, flags, method)
        .map_err(|why| PackageError::Header(shown(), why))?;
    let method = match method {
        0 => Method::Stored,
        8 => Method::Deflated,
        other => return Err(PackageError::Method(shown(), other)),
    };
    let end = usize::try_from(wide.packed).ok().and_then(|packed| local.data.checked_add(packed));
    let Some(end) = end.filter(|end| *end <= directory.start) else {
        return Err(PackageError::Header(shown(), "its data reaches into the directory"));
    };
    let entry = Entry {
        raw_name,
        unix_mode: external >> 16,
        method,
        crc32,
        data: &zip[local.data..end],
        unpacked_bytes: wide.unpacked,
    };
    Ok((entry, (local.header, end)))
}

struct Wide {
    packed: u64,
    unpacked: u64,
    offset: u64,
}

/// Takes the 64-bit values from the zip64 extra field for those that do not fit in the header. `None` when they
/// are needed and not there.
fn widen(packed: u32, unpacked: u32, offset: u32, extra: &[u8]) -> Option<Wide> {
    let mut wide = Wide { packed: packed.into(), unpacked: unpacked.into(), offset: offset.into() };
    if ![packed, unpacked, offset].contains(&u32::MAX) {
        return Some(wide);
    }
    let mut fields = Fields(extra);
    loop {
        let (kind, length) = (fields.u16()?, fields.u16()?);
        let mut body = Fields(fields.take(length.into())?);
        if kind != ZIP64_EXTRA {
            continue;
        }
        // The field holds only the values that overflowed, in this order.
        for (narrow, value) in
            [(unpacked, &mut wide.unpacked), (packed, &mut wide.packed), (offset, &mut wide.offset)]
        {
            if narrow == u32::MAX {
                *value = body.u64()?;
            }
        }
        return Some(wide);
    }
}

struct Local {
    header: usize,
    data: usize,
}

fn read_local(
    zip: &[u8],
    directory: &Directory,
    offset: u64,
    name: &[u8],
    flags: u16,
    method: u16,
) -> Result<Local, &'static str> {
    const OUTSIDE: &str = "it lies outside the archive";
    let header = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(directory.prefix));
    let header = header.filter(|header| *header < directory.start).ok_or(OUTSIDE)?;
    let mut fields = Fields(&zip[header..directory.start]);
    let mut fixed = Fields(fields.take(LOCAL_BYTES).ok_or(OUTSIDE)?);
    if fixed.take(4) != Some(&LOCAL) {
        return Err("there is no entry at the place that the directory names");
    }
    let read = (|| {
        let _version = fixed.u16()?;
        let (flags, method) = (fixed.u16()?, fixed.u16()?);
        let _time_crc_and_sizes = fixed.take(16)?;
        Some((flags, method, fixed.u16()?, fixed.u16()?))
    })();
    let (local_flags, local_method, name_length, extra_length) = read.ok_or(OUTSIDE)?;
    let local_name = fields.take(name_length.into()).ok_or(OUTSIDE)?;
    fields.take(extra_length.into()).ok_or(OUTSIDE)?;
    if local_name != name || local_method != method || (local_flags ^ flags) & 1 != 0 {
        return Err("the one in front of the data says otherwise than the directory");
    }
    Ok(Local { header, data: directory.start - fields.0.len() })
}

/// No byte belongs to two entries: the trick behind archives that unpack to thousands of times their size.
fn refuse_overlaps(entries: &[Entry<'_>], mut places: Vec<(Place, usize)>) -> Result<(), PackageError> {
    places.sort_unstable();
    for pair in places.windows(2) {
        if let [((_, end), _), ((next, _), index)] = pair
            && next < end
        {
            return Err(PackageError::Header(entries[*index].shown(), "it shares bytes with another entry"));
        }
    }
    Ok(())
}
