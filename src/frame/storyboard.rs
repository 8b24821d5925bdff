//! A storyboard: pictures from all over a video, side by side in one image.
//!
//! A tile shows the keyframe before its moment, which is decoded alone; where the tile before shows that one already,
//! the frame at the moment itself. Must not know how it was asked for.

use super::encode::Format;
use super::image::Image;
use super::still::{encode, frame};
use super::{FrameError, Job, Limits};
use crate::media::ReadAt;
use crate::media::index::{Index, Position, SeekError, TrackKind};
use std::time::Instant;

/// How a storyboard is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    pub columns: u32,
    pub rows: u32,
    /// Of one tile, in pixels.
    pub width: u32,
    pub format: Format,
}

/// A storyboard may take the time that so many frames may, whatever its number of tiles.
const TIMES: u32 = 3;

/// The file of a storyboard.
pub fn render(index: &Index, src: &dyn ReadAt, tiles: &Tiles, job: &Job) -> Result<Vec<u8>, FrameError> {
    let limits = &job.limits;
    let time = limits.time * TIMES;
    let until = Instant::now() + time;
    let track = index.summary().tracks.iter().find(|track| track.kind == TrackKind::Video);
    let frames = track.map_or(0, |track| track.frames);
    if frames == 0 {
        let text = "this video has no picture, so it has no storyboard";
        return Err(SeekError::Unanswerable(text.to_owned()).into());
    }
    let count = u64::from(tiles.columns) * u64::from(tiles.rows);
    let mut board: Option<Image> = None;
    let mut last_key = None;
    for n in 0..count {
        if Instant::now() >= until {
            return Err(FrameError::TooSlow { limit: time });
        }
        // The middle of the n-th of so many equal stretches.
        let middle = u128::from(frames) * u128::from(2 * n + 1) / u128::from(2 * count);
        let middle = u64::try_from(middle).unwrap_or(0).min(frames - 1);
        let key = index.resolve(src, &Position::Frame(middle))?.keyframe.frame;
        let key = key.and_then(|key| u64::try_from(key).ok());
        let number = key.filter(|_| key != last_key).unwrap_or(middle);
        last_key = key;
        let tile = frame(index, src, &Position::Frame(number), job)?.image(Some(tiles.width), limits)?;
        place(&mut board, &tile, tiles, n, limits)?;
    }
    let board = board.ok_or_else(|| FrameError::Damaged("no tile".to_owned()))?;
    encode(&board, tiles.format, job)
}

/// Puts tile `n` in its place; the first one says how high tiles are.
fn place(board: &mut Option<Image>, tile: &Image, tiles: &Tiles, n: u64, limits: &Limits) -> Result<(), FrameError> {
    let (columns, rows) = (tiles.columns as usize, tiles.rows as usize);
    let (width, height) = (tile.width * columns, board.as_ref().map_or(tile.height * rows, |board| board.height));
    if (width as u64).saturating_mul(height as u64) > limits.pixels_max {
        let text = format!("the storyboard would have {width} × {height} pixels; at most {}", limits.pixels_max);
        return Err(FrameError::TooLarge(text));
    }
    let blank = || Image { width, height, pixels: vec![0; width * height * 3], alpha: None };
    let board = board.get_or_insert_with(blank);
    let (column, row) = (n as usize % columns, n as usize / columns);
    let tile_height = board.height / rows;
    for y in 0..tile.height.min(tile_height) {
        let to = 3 * ((row * tile_height + y) * board.width + column * tile.width);
        let from = 3 * y * tile.width;
        let line = &tile.pixels[from..from + 3 * tile.width];
        if let Some(place) = board.pixels.get_mut(to..to + line.len()) {
            place.copy_from_slice(line);
        }
    }
    Ok(())
}
