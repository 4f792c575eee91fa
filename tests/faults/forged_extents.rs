//! Extents of a forger: pieces of frames that are not there, or not what they claim.

use sessionkeep_archive::format::Extent;

use super::forge::{assert_refused, assert_restored, compressed, extent, forge, put};
use super::keeper::World;

#[test]
fn an_extent_that_reaches_beyond_what_there_is_is_refused() {
    let content = [7_u8; 2048];
    let frame = compressed(&content);
    let whole = extent(&content, &frame);
    let half = Extent { len: 1024, ..whole };
    let outside = "lies outside its frame";
    let cases: Vec<(&str, Vec<Extent>, &str)> = vec![
        ("beyond its frame", vec![Extent { at: 1, ..whole }], outside),
        (
            "overflowing",
            vec![Extent {
                at: u32::MAX,
                ..whole
            }],
            outside,
        ),
        (
            "of the largest numbers",
            vec![Extent {
                at: u32::MAX,
                len: u32::MAX,
                frame_raw: u32::MAX,
                ..whole
            }],
            outside,
        ),
        (
            "of nothing",
            vec![Extent { len: 0, ..whole }, whole],
            outside,
        ),
        (
            "of a pack that is not named",
            vec![Extent { source: 1, ..whole }],
            outside,
        ),
        (
            "of the last pack there could be",
            vec![Extent {
                source: u32::MAX,
                ..whole
            }],
            outside,
        ),
        (
            "of a frame beyond the end",
            vec![Extent {
                frame: u32::MAX,
                frame_len: u32::MAX,
                ..whole
            }],
            "a frame lies beyond the end of its source",
        ),
        (
            "of a frame that is longer than its source",
            vec![Extent {
                frame_len: whole.frame_len + 1,
                ..whole
            }],
            "a frame lies beyond the end of its source",
        ),
        (
            "of an empty frame",
            vec![Extent {
                frame_len: 0,
                ..whole
            }],
            "a frame",
        ),
        (
            "of a frame that is longer than it claims",
            vec![
                Extent {
                    frame_raw: 1024,
                    ..half
                },
                half,
            ],
            "a frame",
        ),
        (
            "of a frame that is shorter than it claims",
            vec![Extent {
                frame_raw: 4096,
                ..whole
            }],
            "a frame is not as long as it claims",
        ),
        (
            "twice the same half",
            vec![half, half],
            "it does not have its hash",
        ),
        (
            "in pieces that are no blocks",
            vec![
                Extent { len: 100, ..whole },
                Extent {
                    at: 100,
                    len: 1948,
                    ..whole
                },
            ],
            "does not begin and end where a block does",
        ),
        ("too few", vec![half], "do not make up its size"),
        ("none", vec![], "do not make up its size"),
    ];
    let varied: Vec<u8> = (0..2048_u32).map(|n| (n / 8) as u8).collect();
    for (what, extents, reason) in cases {
        let world = World::sqlite();
        // Where the two halves are the same, the one is as good as the other.
        let (content, frame) = match what {
            "twice the same half" => (&varied[..], compressed(&varied)),
            _ => (&content[..], frame.clone()),
        };
        let frame_len = u32::try_from(frame.len()).expect("small");
        let extents = match what {
            "twice the same half" => extents.iter().map(|e| Extent { frame_len, ..*e }).collect(),
            _ => extents,
        };
        forge(&world, vec![put("a", content, 2048, extents)], frame, None);
        assert_refused(&world, what, reason);
    }
    let world = World::sqlite();
    let second = Extent { at: 1024, ..half };
    forge(
        &world,
        vec![put("a", &content, 2048, vec![half, second])],
        frame,
        None,
    );
    assert_restored(&world, "two halves");
}
