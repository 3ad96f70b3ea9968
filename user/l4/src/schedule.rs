//! When and where threads run (X.2, Schedule, ThreadSwitch).

use l4_abi::{
    PreemptFlags, PreemptionControl, PrioControl, ProcessorControl, ScheduleResult, SysError, ThreadId, Time,
    TimeControl,
};

use crate::{arch, thread::last_error, utcb};

/// Gives up the rest of the time slice.
#[doc(alias = "L4_Yield")]
pub fn yield_now() {
    arch::thread_switch(ThreadId::NIL);
}

/// Gives the rest of the time slice to another thread.
#[doc(alias = "L4_ThreadSwitch")]
pub fn thread_switch(to: ThreadId) {
    arch::thread_switch(to);
}

/// Sets parameters of a thread; returns its state and its remaining times before.
///
/// # Errors
/// NoPrivilege, InvalidThread, InvalidParameter.
#[doc(alias = "L4_Schedule")]
pub fn schedule(
    dest: ThreadId,
    time: TimeControl,
    processor: ProcessorControl,
    prio: PrioControl,
    preemption: PreemptionControl,
) -> Result<(ScheduleResult, TimeControl), SysError> {
    let (result, old_time) = arch::schedule(dest, time, processor, prio, preemption);
    match ScheduleResult::from_raw(result) {
        Some(ScheduleResult::Error) | None => Err(last_error()),
        Some(state) => Ok((state, old_time)),
    }
}

/// Sets the priority.
///
/// # Errors
/// As [`schedule`].
#[doc(alias = "L4_Set_Priority")]
pub fn set_priority(dest: ThreadId, priority: u8) -> Result<ScheduleResult, SysError> {
    let prio = PrioControl::new(priority);
    schedule(dest, TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, prio, PreemptionControl::NO_CHANGE)
        .map(|(state, _)| state)
}

/// Moves the thread to another processor.
///
/// # Errors
/// As [`schedule`].
#[doc(alias = "L4_Set_ProcessorNo")]
pub fn set_processor_no(dest: ThreadId, processor: u16) -> Result<ScheduleResult, SysError> {
    let processor = ProcessorControl::new(processor);
    schedule(dest, TimeControl::NO_CHANGE, processor, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE)
        .map(|(state, _)| state)
}

/// Sets time slice and total quantum; [`Time::NEVER`] for no limit.
///
/// # Errors
/// As [`schedule`].
#[doc(alias = "L4_Set_Timeslice")]
pub fn set_timeslice(dest: ThreadId, timeslice: Time, total_quantum: Time) -> Result<ScheduleResult, SysError> {
    let time = TimeControl::new(timeslice, total_quantum);
    schedule(dest, time, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE)
        .map(|(state, _)| state)
}

/// What is left of time slice and total quantum.
///
/// # Errors
/// As [`schedule`].
#[doc(alias = "L4_Timeslice")]
pub fn timeslice(dest: ThreadId) -> Result<TimeControl, SysError> {
    let unchanged = (ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, PreemptionControl::NO_CHANGE);
    schedule(dest, TimeControl::NO_CHANGE, unchanged.0, unchanged.1, unchanged.2).map(|(_, old_time)| old_time)
}

/// Sets sensitive priority and longest delay of a preemption.
///
/// # Errors
/// As [`schedule`].
#[doc(alias = "L4_Set_PreemptionDelay")]
pub fn set_preemption_delay(
    dest: ThreadId,
    sensitive_priority: u8,
    max_delay_us: u16,
) -> Result<ScheduleResult, SysError> {
    let preemption = PreemptionControl::new(sensitive_priority, max_delay_us);
    schedule(dest, TimeControl::NO_CHANGE, ProcessorControl::NO_CHANGE, PrioControl::NO_CHANGE, preemption)
        .map(|(state, _)| state)
}

/// Asks for delay: from now on threads up to the sensitive priority, and the end of the time slice, have to wait, as long as
/// [`set_preemption_delay`] allows. The C library's name of this is EnablePreemption on amd64 and DisablePreemption on ia32.
pub fn begin_preemption_delay() {
    utcb().raise_preempt_flags(PreemptFlags::DELAY);
}

/// Takes that back, and gives the processor to whoever has had to wait meanwhile.
pub fn end_preemption_delay() {
    utcb().lower_preempt_flags(PreemptFlags::DELAY);
    if utcb().lower_preempt_flags(PreemptFlags::PENDING).contains(PreemptFlags::PENDING) {
        yield_now();
    }
}

/// Whether a preemption has been delayed since the last switch.
#[doc(alias = "L4_PreemptionPending")]
pub fn is_preemption_pending() -> bool {
    PreemptFlags::from_raw(utcb().preempt_flags()).contains(PreemptFlags::PENDING)
}

/// Has the exception handler told of preemptions that come although they are delayed, because that took too long.
#[doc(alias = "L4_EnablePreemptionFaultException")]
pub fn enable_preemption_faults() {
    utcb().raise_preempt_flags(PreemptFlags::SIGNAL);
}

/// Has the exception handler left alone.
#[doc(alias = "L4_DisablePreemptionFaultException")]
pub fn disable_preemption_faults() {
    utcb().lower_preempt_flags(PreemptFlags::SIGNAL);
}

/// Runs `section` with preemption delayed, and yields afterwards if one was due (X.2, Delayed Preemption).
#[doc(alias = "L4_DisablePreemption")]
#[doc(alias = "L4_EnablePreemption")]
pub fn delay_preemption<R>(section: impl FnOnce() -> R) -> R {
    begin_preemption_delay();
    let result = section();
    end_preemption_delay();
    result
}
