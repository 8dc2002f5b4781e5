//! The read end of the pipe that everything a sandbox prints goes through.

use super::{Record, Splitter};
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// Bytes taken by one read.
const PIECE: usize = 16 * 1024;
/// Most bytes taken before others get their turn; a function may print without end.
const TURN: usize = 1024 * 1024;

/// Reads without waiting; whoever owns it decides when.
#[derive(Debug)]
pub(crate) struct LogPipe {
    pipe: Receiver,
    splitter: Splitter,
    ended: bool,
}

impl LogPipe {
    /// A reader, and the end to hand to the sandbox.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let pipe = Receiver::from_owned_fd(reader.into())?;
        Ok((Self { pipe, splitter: Splitter::default(), ended: false }, writer.into()))
    }

    /// Has the tokio runtime of the calling task hear from the pipe.
    pub(crate) fn move_here(&mut self) -> io::Result<()> {
        let again = self.pipe.as_fd().try_clone_to_owned()?;
        self.pipe = Receiver::from_owned_fd(again)?;
        Ok(())
    }

    /// Takes what is there and appends the records that it completes. `Pending` when the pipe is empty for now and the
    /// task will be woken; `Ready` when there may be more.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, records: &mut Vec<Record>) -> Poll<()> {
        if self.ended || self.pipe.poll_read_ready(context).is_pending() {
            return Poll::Pending;
        }
        let mut piece = Vec::with_capacity(PIECE);
        let mut taken = 0;
        while taken < TURN {
            piece.clear();
            let reading = self.pipe.read_buf(&mut piece);
            match std::task::ready!(pin!(reading).poll(context)) {
                Ok(count @ 1..) => taken += count,
                Ok(0) | Err(_) => {
                    self.ended = true;
                    return Poll::Pending;
                }
            }
            self.splitter.feed(&piece, records);
        }
        Poll::Ready(())
    }

    /// Takes everything that was written before this call, and ends the record that has begun. Asks the pipe itself,
    /// because the news of what is readable may come later than the answer that it precedes.
    pub(crate) fn drain(&mut self, records: &mut Vec<Record>) {
        let mut taken = 0;
        // A pipe holds at most as much as `TURN`; what comes after that was written since.
        while !self.ended && taken < TURN {
            match read(&self.pipe, &mut self.splitter, records) {
                Read::Some(count) => taken += count,
                Read::Empty => break,
                Read::End => self.ended = true,
            }
        }
        self.splitter.flush(records);
    }
}

enum Read {
    Some(usize),
    Empty,
    End,
}

fn read(pipe: &Receiver, splitter: &mut Splitter, records: &mut Vec<Record>) -> Read {
    let mut piece = [const { MaybeUninit::uninit() }; PIECE];
    match rustix::io::read(pipe, &mut piece) {
        Ok(([], _)) => Read::End,
        Ok((bytes, _)) => {
            splitter.feed(bytes, records);
            Read::Some(bytes.len())
        }
        Err(error) if error == rustix::io::Errno::AGAIN || error == rustix::io::Errno::INTR => Read::Empty,
        Err(_) => Read::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write as _;

    fn texts(records: &[Record]) -> Vec<&str> {
        records.iter().map(|record| record.text.as_str()).collect()
    }

    #[tokio::test]
    async fn what_is_written_is_read_whether_or_not_its_news_has_come() {
        let (mut pipe, writer) = LogPipe::pair().unwrap();
        let mut writer = std::fs::File::from(writer);
        let mut records = Vec::new();
        writer.write_all(b"one\ntwo").unwrap();
        pipe.drain(&mut records);
        assert_eq!(texts(&records), ["one", "two"]);

        records.clear();
        let waker = std::thread::spawn(move || {
            writer.write_all(b"three\nfo").unwrap();
            writer
        });
        while records.is_empty() {
            poll_fn(|context| {
                let _ = pipe.poll(context, &mut records);
                if records.is_empty() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        let mut writer = waker.join().unwrap();
        writer.write_all(b"ur\n").unwrap();
        drop(writer);
        pipe.drain(&mut records);
        assert_eq!(texts(&records), ["three", "four"]);
        pipe.drain(&mut records);
        assert_eq!(records.len(), 2);
    }

    #[tokio::test]
    async fn an_endless_writer_does_not_keep_the_reader() {
        let (mut pipe, writer) = LogPipe::pair().unwrap();
        let mut writer = std::fs::File::from(writer);
        let endless = std::thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
        let mut records = Vec::new();
        pipe.drain(&mut records);
        poll_fn(|context| pipe.poll(context, &mut records)).await;
        assert!(records.iter().all(|record| record.text.len() <= super::super::records::RECORD_BYTES));
        drop(pipe);
        endless.join().unwrap();
    }
}
