/* The groups of the suite, each in a file. */
#ifndef SUITE_H
#define SUITE_H

#include "world.h"

void test_kip(void);
void test_arch(void);
void test_memory(void);
void test_ipc(void);
void test_strings(void);
void test_sigma0(void);
void test_exchange_registers(void);
void test_thread_control(void);
void test_schedule(void);

#endif
