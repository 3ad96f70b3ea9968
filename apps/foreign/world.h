/* Threads and spaces for the suite. The first thread of the root task makes them, is their pager and their scheduler,
 * and they see the program's memory at the same addresses as it does.
 */
#ifndef WORLD_H
#define WORLD_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { THREADS = 4 };

/* States that Schedule tells. */
enum { STATE_ERROR, STATE_DEAD, STATE_INACTIVE, STATE_RUNNING, STATE_PENDING_SEND, STATE_SENDING, STATE_WAITING,
       STATE_RECEIVING };

/* The first thread, by its global id. */
extern word main_thread;

/* Thread `n`, counted from 1: its global id, its local id, the top of its stack. */
word thread_id(word n);
word thread_local_id(word n);
word thread_stack(word n);

/* Makes thread `n` wait for its start message, in the first thread's space or in a new one. */
void make_thread(word n);
void make_thread_in_new_space(word n);
/* Makes thread `n` without UTCB and pager. */
void make_inactive_thread(word n);
word activate_thread(word n);
/* Sends the start message. */
void run_thread(word n, void (*code)(void));
/* Deletes the thread, and its space if it was the last. */
void kill_thread(word n);

/* Tells the first thread, for serve(), and waits for its answer, the tag of which comes back. */
word tell(void);
/* What a thread does at its end: tells the first one. */
__attribute__((noreturn)) void done(void);

/* Answers page faults until `count` threads are done. */
void serve(word count);
/* What is asked before a page fault is answered: 1 to map the page, 0 to leave the thread waiting. */
extern int (*fault_filter)(word from, word tag, word address, word ip);

/* The state of thread `n`. The second gives all threads the processor until it is `state`. */
word thread_state(word n);
void wait_for_state(word n, word state);

#ifdef __cplusplus
}
#endif

#endif
