//! A call that waits in hand gets a turn here or goes to a worker that has room, whichever comes
//! first; and a worker with room takes over what others offer.

use std::{pin::pin, time::Duration};

use shared::{
    Fault,
    bus::{pass::Offer, work::Delivered},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shift,
    hold::Hold,
    load::{Load, Turn},
    one,
};
use crate::pools::Dispatch;

/// How often a full worker asks again when nobody had room.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a worker is full before it hears no offers any more: coming and going costs messages, and one whose calls
/// are short has room again in a moment.
const FULL_FOR: Duration = Duration::from_millis(250);

/// Waits for a turn. `None` when the call was passed on, and is not ours any more.
pub(super) async fn turn_or_pass_on<P: Dispatch>(
    parts: &P,
    load: &Load,
    delivered: &Delivered,
    hold: &Hold,
) -> Option<Turn> {
    let mut turn = pin!(load.turn());
    loop {
        let _offer = tokio::select! {
            biased;
            turn = &mut turn => return Some(turn),
            offer = load.offer() => offer,
        };
        // No turn is taken while another may say yes: it would run twice.
        if parts.bus().pass_on(P::POOL, delivered, || hold.unconfirmed_for()).await {
            return None;
        }
        tokio::select! {
            biased;
            turn = &mut turn => return Some(turn),
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
    }
}

/// Takes over calls of full workers while there is room, until told to stop.
pub(super) async fn take_over<P: Dispatch>(shift: &Shift<P>, stop: &CancellationToken) -> Result<(), Fault> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = shift.load.has_room() => {}
        }
        let mut offers = shift.parts.bus().offers(P::POOL).await?;
        let mut full = pin!(shift.load.stays_full(FULL_FOR));
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = &mut full => break,
                offer = offers.next() => match offer {
                    Some(offer) => consider(shift, offer),
                    None => break,
                },
            }
        }
        offers.end().await;
        while let Some(offer) = offers.next().await {
            consider(shift, offer);
        }
    }
}

/// Takes the call if it can run at once.
fn consider<P: Dispatch>(shift: &Shift<P>, offer: Offer) {
    let Some(turn) = shift.load.turn_now() else {
        shift.tasks.spawn(offer.decline());
        return;
    };
    let (shift, place) = (shift.clone(), shift.load.enter());
    shift.tasks.clone().spawn(async move {
        if let Some(delivered) = offer.accept().await {
            metrics::counter!("switchboard_calls_taken_over_total").increment(1);
            one(&shift, place, delivered, Some(turn)).await;
        }
    });
}
