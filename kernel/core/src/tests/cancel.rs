//! The end of an IPC from outside (X.2, ExchangeRegisters: S and R).

use super::script::{check, check_alone};

/// X.2, ExchangeRegisters: S ends a send, R a receive, and neither the other.
#[test]
fn cancel_ends_the_phase_it_names() {
    check("a send b 1; c cancel-send a", "a Send Canceled");
    check("a send b 1; c cancel-receive a", "a queued on b");
    check("a wait; c cancel-receive a", "a Receive Canceled");
    check("a wait; c cancel-send a", "a waits for any");
    check("a wait b rcv=50; c cancel a; clock 50", "a Receive Canceled");
    check("b wait; a call b; c cancel-send a", "a waits for b");
    check("b wait; a call b; c cancel-receive a", "a Receive Canceled");
    check("b cancel a", "a ready");
}

/// X.2, ExchangeRegisters: a cancelled send does not go on with its receive phase, and the queue forgets it.
#[test]
fn cancelled_sender_is_not_received() {
    check("a call b 1; d send b 2; c cancel a; b wait", "a Send Canceled; b got 2 from 'd");
    check("a call b 1; c cancel a; b wait rcv=0", "b Receive Timeout");
    check("a call b 1; c cancel a; c send a 3 snd=0", "c Send Timeout");
}

/// X.2, ExchangeRegisters: the send is over and the receive phase has only not found its time yet; that is a receive.
#[test]
fn receive_phase_that_has_not_begun_can_be_cancelled() {
    let sent = "c send a 5; a call b 1 from=any; b wait";
    check_alone(sent, "a works on ReceivePhase; c queued on a");
    check_alone(&format!("{sent}; b cancel-send a; a finish"), "a got 5 from 'c");
    check_alone(&format!("{sent}; b cancel-receive a"), "a Receive Canceled; c queued on a");
    check_alone(&format!("{sent}; b cancel-receive a; a wait"), "a got 5 from 'c");
    check_alone(&format!("{sent}; a finish"), "a got 5 from 'c; c sent");
}

/// X.2, ExchangeRegisters: whoever was queued may be gone when the receive phase has its time; then it waits.
#[test]
fn receive_phase_waits_if_its_sender_is_gone() {
    let sent = "c send a 5; a call b 1 from=any rcv=100; b wait; b cancel c; a finish";
    check(sent, "a waits for any; c Send Canceled");
    check(&format!("{sent}; clock 100"), "a Receive Timeout");
}

/// r has pages to send.
const PAGES: &str = "root send s; r accept; r wait; s send r map=0x1000000/20; b accept";

/// The two ways into the middle of a transfer: the sender found the receiver waiting, or the receiver found the sender.
/// With them who then carries it out.
fn begun() -> [(String, &'static str); 2] {
    let found_receiver = format!("{PAGES}; b wait; r send b 1 map=0x1000000/20 ~");
    let found_sender = format!("{PAGES}; r send b 1 map=0x1000000/20; b wait ~");
    [(found_receiver, "r"), (found_sender, "b")]
}

/// X.2, Ipc: in the middle of a transfer an abort of either side ends it for both, whoever carries it out.
#[test]
fn transfer_is_aborted_for_both_sides() {
    let [found_receiver, found_sender] = begun();
    check(&found_receiver.0, "r works on Transfer; b receives from r");
    check(&found_sender.0, "r sends to b; b works on Transfer");
    for (begun, carrier) in [found_receiver, found_sender] {
        check(&format!("{begun}; a cancel-receive b"), "r Send Aborted; b Receive Aborted");
        check(&format!("{begun}; root cancel-send r"), "r Send Aborted; b Receive Aborted");
        check(&format!("{begun}; a cancel-send b; root cancel-receive r; {carrier} finish"), "r sent; b got 1 from r");
    }
}

/// X.2, Ipc: what was transferred before an abort stays, and both can go on as if nothing had been.
#[test]
fn both_sides_of_an_aborted_transfer_go_on() {
    for (begun, _) in begun() {
        check(&format!("{begun}; root cancel r; b wait; r send b 2"), "r sent; b got 2 from r");
        check(&format!("{begun}; root cancel r; b wait; r send b 3 map=0x1000000/20"), "r sent; b got 3 from r");
    }
}

/// X.2, Ipc: during a transfer other senders stay queued on the receiver.
#[test]
fn others_wait_for_the_end_of_a_transfer() {
    for (begun, carrier) in begun() {
        check(&format!("{begun}; a send b 2 snd=0"), "a Send Timeout");
        check(&format!("{begun}; a send b 2; {carrier} finish; b wait"), "r sent; b got 2 from 'a");
    }
}
