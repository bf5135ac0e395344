use super::*;
use crate::ids::{Epoch, LogIndex, Name, TransactionId};
use proptest::prelude::*;

fn genesis() -> Genesis {
    Genesis { cluster: Name::new("beam").unwrap(), epoch: Epoch(1), format: 1, slots_log2: 20, window: 1_000_000 }
}

fn iri(text: &str) -> Term {
    Term::Iri(text.into())
}

fn fact(subject: u32, predicate: u32, object: u32) -> FactRef {
    FactRef { subject, predicate, object, graph: None }
}

fn transact() -> Transact {
    Transact {
        epoch: Epoch(1),
        id: TransactionId { born: LogIndex(1), random: 2 },
        read_index: LogIndex(1),
        reads: vec![1, 5],
        terms: vec![iri("x:s"), iri("x:p"), Term::string("o"), Term::Blank("b".into())],
        deletes: vec![fact(0, 1, 2)],
        inserts: vec![fact(0, 1, 3), FactRef { graph: Some(0), ..fact(3, 1, 2) }],
    }
}

/// Why the command is refused once it is written down.
#[track_caller]
fn refusal(command: Command) -> String {
    match Command::decode(&command.encode()) {
        Err(CommandError::Malformed(why)) => why,
        other => panic!("{command:?} was not refused but gave {other:?}"),
    }
}

#[test]
fn commands_come_back() {
    for command in [Command::Genesis(genesis()), Command::Transact(transact()), Command::Upgrade(2)] {
        let body = command.encode();
        assert_eq!(Command::format_of(&body), Ok(FORMAT));
        assert_eq!(Command::decode(&body), Ok(command));
    }
}

#[test]
fn a_body_says_how_large_its_command_is() {
    let small = Command::Upgrade(2).encode();
    assert_eq!(Command::bytes_of(&small), small.len());
    let mut large = transact();
    large.terms[2] = Term::string("o".repeat(5000));
    let (command, body) = (Command::Transact(large.clone()), Command::Transact(large).encode());
    assert!(body.len() < 1000, "it was compressed to {}", body.len());
    assert_eq!(Command::bytes_of(&body), codec::encode(&command).len());
    // Whatever nonsense says is bounded.
    assert_eq!(Command::bytes_of(&[1, 0, LZ4, 0xff, 0xff, 0xff, 0xff]), COMMAND_BYTES_MAX);
    assert_eq!(Command::bytes_of(&[1, 0, LZ4, 0, 0, 0, 0]), 7);
    assert_eq!(Command::bytes_of(&[]), 0);
}

#[test]
fn ids_come_with_the_command() {
    let (command, ids) = Command::decode_with_ids(&Command::Transact(transact()).encode()).unwrap();
    assert_eq!(command, Command::Transact(transact()));
    assert_eq!(ids, transact().term_ids());
}

#[test]
fn large_commands_are_compressed_and_incompressible_ones_are_not() {
    let mut large = transact();
    large.terms[2] = Term::string("again and ".repeat(1000));
    let body = Command::Transact(large.clone()).encode();
    assert_eq!(body[2], LZ4);
    assert!(body.len() < 500);
    assert_eq!(Command::decode(&body), Ok(Command::Transact(large.clone())));
    let mut seed = 1u64;
    let noise = (0..200).map(|_| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'!' + (seed >> 33) as u8 % 90)
    });
    large.terms[2] = Term::string(noise.collect::<String>());
    assert_eq!(Command::Transact(large).encode()[2], PLAIN);
}

/// The compressor may choose other bytes one day; those that are in logs must be read for ever.
#[test]
fn compressed_bytes_that_were_written_once_are_read() {
    // Three literals, 19 times the last of them, five literals.
    let block = [0x3f, 0x00, 20, b'a', 1, 0, 0, 0x50, 1, 1, 20, 0xac, 2];
    let body = [&[1, 0, 1, 27, 0, 0, 0][..], &block].concat();
    let cluster = Name::new("a".repeat(20)).unwrap();
    let genesis = Genesis { cluster, epoch: Epoch(1), format: 1, slots_log2: 20, window: 300 };
    assert_eq!(Command::decode(&body), Ok(Command::Genesis(genesis)));
}

#[test]
fn the_envelope_is_checked_before_anything_is_allocated() {
    let why = |body: &[u8]| Command::decode(body).unwrap_err().to_string();
    assert!(why(&[]).contains("too short"));
    assert!(why(&[1]).contains("too short"));
    assert!(why(&[0, 0, 0]).contains("no format 0"));
    assert!(why(&[1, 0]).contains("compression mark"));
    assert!(why(&[1, 0, 2, 0]).contains("unknown compression 2"));
    assert_eq!(Command::decode(&[2, 0, 0]), Err(CommandError::Format { found: 2, known: 1 }));
    assert!(why(&[1, 0, 1, 0, 0]).contains("no length"));
    let too_long = (COMMAND_BYTES_MAX as u32 + 1).to_le_bytes();
    assert!(why(&[&[1, 0, 1][..], &too_long, &[0; 9]].concat()).contains("more than"));
    assert!(why(&[&[1, 0, 1][..], &9u32.to_le_bytes(), &[0x10, 7]].concat()).contains("holds 1 bytes, not 9"));
    assert!(why(&[&[1, 0, 1][..], &0u32.to_le_bytes(), &[0x10, 7]].concat()).contains("LZ4"));
    let trailing = [&Command::Upgrade(2).encode()[..], &[0]].concat();
    assert!(why(&trailing).contains("1 bytes follow"));
}

#[test]
fn a_genesis_outside_its_bounds_is_refused() {
    let bad = |change: fn(&mut Genesis)| {
        let mut genesis = genesis();
        change(&mut genesis);
        refusal(Command::Genesis(genesis))
    };
    assert!(bad(|g| g.slots_log2 = 9).contains("2^10"));
    assert!(bad(|g| g.slots_log2 = 31).contains("2^10"));
    assert!(bad(|g| g.window = 0).contains("window"));
    assert!(bad(|g| g.epoch = Epoch(0)).contains("epoch"));
    assert!(bad(|g| g.format = 0).contains("format 0"));
    assert!(refusal(Command::Upgrade(0)).contains("format 0"));
}

#[test]
fn a_transaction_that_is_wrong_in_any_way_is_refused() {
    let bad = |change: fn(&mut Transact)| {
        let mut transact = transact();
        change(&mut transact);
        refusal(Command::Transact(transact))
    };
    assert!(bad(|t| t.reads = vec![5, 1]).contains("reads"));
    assert!(bad(|t| t.reads = vec![5, 5]).contains("reads"));
    assert!(bad(|t| t.reads = (0..=READS_MAX as u64).collect()).contains("malformed"));
    assert!(bad(|t| t.terms[0] = iri("relative")).contains("absolute"));
    assert!(bad(|t| t.terms[0] = t.terms[1].clone()).contains("twice"));
    assert!(bad(|t| t.terms.push(iri("x:unused"))).contains("no fact uses term 4"));
    assert!(bad(|t| t.inserts[0].object = 4).contains("term 4 of 4"));
    assert!(bad(|t| t.deletes[0].object = u32::MAX).contains("of 4"));
    assert!(bad(|t| t.inserts.reverse()).contains("inserts are not"));
    assert!(bad(|t| t.deletes.push(t.deletes[0])).contains("deletes are not"));
    assert!(bad(|t| t.inserts[1].subject = 2).contains("literal cannot be a subject"));
    assert!(bad(|t| t.deletes[0].predicate = 3).contains("blank node cannot be a predicate"));
    assert!(bad(|t| t.inserts[1].graph = Some(2)).contains("literal cannot be a graph"));
    assert!(
        bad(|t| t.terms[3] = Term::LangLiteral { lexical: "".into(), language: "EN".into(), direction: None })
            .contains("lower case")
    );
}

#[test]
fn counts_that_the_bytes_do_not_hold_are_refused() {
    // A transaction's head, then a count of reads, terms or facts without any following.
    let head = codec::encode(&(1u32, Epoch(1), TransactionId { born: LogIndex(1), random: 2 }, LogIndex(1)));
    for zeros in 0..4 {
        for count in [1, 1000, 1 << 18, 1 << 30, u64::MAX] {
            let body = [&[1, 0, 0][..], &head, &vec![0; zeros], &codec::encode(&count)].concat();
            assert!(matches!(Command::decode(&body), Err(CommandError::Malformed(_))), "{zeros} {count}");
        }
    }
    let whole = [&[1, 0, 0][..], &head, &[0; 4]].concat();
    assert!(Command::decode(&whole).is_ok());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300), mark in 0u8..2) {
        let _ = Command::decode(&body);
        let framed = [&[1, 0, mark][..], &body].concat();
        if let Ok(command) = Command::decode(&framed) {
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn damaged_commands_never_panic(at in 0usize..200, byte: u8, cut in 0usize..200) {
        let mut body = Command::Transact(transact()).encode().to_vec();
        let at = at % body.len();
        body[at] = byte;
        let _ = Command::decode(&body);
        body.truncate(cut);
        let _ = Command::decode(&body);
    }
}
