use super::*;

const INBOX: &str = "_INBOX_gateway.a";

fn answer<'a>(organization: OrganizationId, inbox: &'a str, line: &'a str) -> Answer<'a> {
    let frame = Bytes::copy_from_slice(line.as_bytes());
    Answer { organization, inbox, line, until: None, frame, event: b"{}", in_hand: None }
}

fn end() -> End {
    End::Tell(oneshot::channel().0)
}

/// As after many answers in no time, some of which left at a moment.
fn busy(organizations: &[OrganizationId], left_at: Instant) -> Answers {
    let answers = Answers::default();
    {
        let mut state = answers.state();
        state.left_at = Some(left_at);
        let pace = Pace { last: left_at, between: Duration::ZERO };
        state.paces.extend(organizations.iter().map(|organization| (*organization, pace)));
    }
    answers
}

fn replies(gathered: &[Gathered]) -> Vec<&str> {
    gathered.iter().map(|gathered| gathered.reply.as_str()).collect()
}

#[test]
fn an_answer_that_none_is_likely_to_join_leaves_at_once() {
    let (answers, organization, start) = (Answers::default(), OrganizationId::new(), Instant::now());
    for number in 0..40 {
        let now = start + Duration::from_millis(1) * number;
        let next = answers.add(answer(organization, INBOX, "1f"), end(), now);
        let Next::Leave(gathered) = next else { panic!("it waits: {next:?}") };
        assert_eq!(replies(&gathered), ["_INBOX_gateway.a.1f"]);
        assert_eq!(gathered[0].events, b"[{}");
    }
}

#[test]
fn answers_that_come_fast_wait_for_others_of_their_organization_alone() {
    let (answers, organization, start) = (Answers::default(), OrganizationId::new(), Instant::now());
    let add = |organization, micros| {
        answers.add(answer(organization, INBOX, "1"), end(), start + Duration::from_micros(micros))
    };
    let waits = (0..60).map(|number| !matches!(add(organization, number * 100), Next::Leave(_)));
    let waits: Vec<bool> = waits.collect();
    assert!(waits[..10].iter().all(|waits| !waits), "not before it is known that they come fast: {waits:?}");
    assert!(waits[30..].iter().filter(|waits| **waits).count() > 25, "{waits:?}");
    let next = add(OrganizationId::new(), 6_010);
    assert!(matches!(next, Next::Leave(_)), "another organization's does not wait for them: {next:?}");
}

#[test]
fn an_answer_waits_no_longer_than_its_time() {
    let (organization, now) = (OrganizationId::new(), Instant::now());
    let answers = busy(&[organization], now);
    let next = answers.add(answer(organization, INBOX, "2"), end(), now);
    assert!(matches!(next, Next::LeaveAt(at) if at == now + PATIENCE), "{next:?}");
    let next = answers.add(answer(organization, INBOX, "3"), end(), now + PATIENCE);
    assert!(matches!(next, Next::Leave(_)), "{next:?}");
    assert!(answers.state().take(now).is_empty());
    assert_eq!(answers.state().left_at, Some(now + PATIENCE), "nothing left then");
}

#[test]
fn nobody_waits_once_every_call_in_hand_has_its_answer() {
    let (one, other, now) = (OrganizationId::new(), OrganizationId::new(), Instant::now());
    let answers = busy(&[one, other], now);
    let add = |organization, in_hand| answers.add(Answer { in_hand, ..answer(organization, INBOX, "1") }, end(), now);
    assert!(matches!(add(one, Some(3)), Next::LeaveAt(_)));
    assert!(matches!(add(one, None), Next::Wait), "what is not queued is no call in hand");
    assert!(matches!(add(other, Some(4)), Next::Wait), "another was delivered meanwhile");
    assert!(matches!(add(other, Some(4)), Next::Wait));
    let next = add(one, Some(4));
    assert!(matches!(&next, Next::Leave(gathered) if gathered.len() == 2), "{next:?}");
    assert!(matches!(add(one, Some(2)), Next::Wait), "those that have left are not counted again");
}

#[test]
fn one_looks_at_the_clock_and_takes_nobody_before_their_time() {
    let (organization, start) = (OrganizationId::new(), Instant::now());
    let answers = busy(&[organization], start);
    let add = |in_hand, at| answers.add(Answer { in_hand, ..answer(organization, INBOX, "1") }, end(), at);
    assert!(matches!(add(Some(2), start), Next::LeaveAt(at) if at == start + PATIENCE));
    let early = start + PATIENCE / 2;
    assert!(matches!(add(Some(2), early), Next::Leave(_)));
    assert!(matches!(add(Some(9), early), Next::Wait), "somebody looks at the clock");
    let (gathered, then) = answers.state().due(start + PATIENCE);
    assert!(gathered.is_empty(), "{gathered:?}");
    assert_eq!(then, Some(early + PATIENCE));
    let (gathered, then) = answers.state().due(early + PATIENCE);
    assert_eq!((gathered.len(), then), (1, None));
    assert!(matches!(add(Some(9), early + PATIENCE), Next::LeaveAt(_)), "nobody does any more");
    answers.state().take(early + PATIENCE);
    assert_eq!(answers.state().due(early + PATIENCE).1, None, "nor where all have left meanwhile");
}

#[test]
fn who_waits_leaves_by_organization_process_and_fence() {
    let (one, other, now) = (OrganizationId::new(), OrganizationId::new(), Instant::now());
    let answers = busy(&[one, other], now);
    assert!(matches!(answers.add(answer(one, INBOX, "1"), end(), now), Next::LeaveAt(_)));
    for (organization, inbox, line) in [(one, "_INBOX_gateway.b", "1"), (other, INBOX, "2"), (one, INBOX, "3")] {
        assert!(matches!(answers.add(answer(organization, inbox, line), end(), now), Next::Wait));
    }
    for after in [9, 5, 7] {
        let until = Some(now + Duration::from_secs(after));
        let next = answers.add(Answer { until, ..answer(one, INBOX, "f") }, end(), now);
        assert!(matches!(next, Next::Wait));
    }
    let gathered = answers.state().take(now);
    let expected = ["_INBOX_gateway.a.1+3", "_INBOX_gateway.b.1", "_INBOX_gateway.a.2", "_INBOX_gateway.a.f+f+f"];
    assert_eq!(replies(&gathered), expected);
    assert_eq!(gathered[0].events, b"[{},{}");
    assert_eq!(gathered[2].organization, other, "no message holds two organizations' events");
    assert_eq!(gathered[3].until, Some(now + Duration::from_secs(5)), "the first to be late");
}

#[test]
fn no_more_wait_than_one_message_shall_hold() {
    let (organization, now) = (OrganizationId::new(), Instant::now());
    let answers = busy(&[organization], now);
    for line in 1..MOST {
        assert!(!matches!(answers.add(answer(organization, INBOX, &line.to_string()), end(), now), Next::Leave(_)));
    }
    assert!(matches!(answers.add(answer(organization, INBOX, "64"), end(), now), Next::Leave(_)));
    let large = vec![b'x'; MOST_BYTES];
    let next = answers.add(Answer { event: &large, ..answer(organization, INBOX, "1") }, end(), now);
    assert!(matches!(next, Next::Leave(_)));
}

#[test]
fn only_lines_of_our_inboxes_are_put_together() {
    assert_eq!(inbox_and_line("_INBOX_gateway.0af.1f"), Some(("_INBOX_gateway.0af", "1f")));
    for other in
        ["_INBOX_gateway", "_INBOX_gateway.", "_INBOX_x.1+2", "_INBOX_x.a b", "_INBOX_x.Zk1", "a.00000000000000001"]
    {
        assert_eq!(inbox_and_line(other), None, "{other}");
    }
}
