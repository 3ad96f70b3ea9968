//! Encodings and layouts at both widths, against the tables of the ABI.

mod time;
mod w32;
mod w64;

/// The tests that read the same at both widths.
macro_rules! width_independent_tests {
    () => {
        #[test]
        fn special_ids_are_what_the_manual_says() {
            assert_eq!(ThreadId::NIL.raw(), 0);
            assert_eq!(ThreadId::ANY.raw(), Word::MAX);
            assert_eq!(ThreadId::ANY_LOCAL.raw() as SWord, -64);
        }

        #[test]
        fn forms_of_ids_tell_apart() {
            // id, is nil, is global, is local
            let rows = [
                (ThreadId::NIL, true, false, false),
                (ThreadId::ANY, false, true, false),
                (ThreadId::ANY_LOCAL, false, false, true),
                (ThreadId::global(77, 1), false, true, false),
                (ThreadId::global(77, 65), false, true, false),
                (ThreadId::local(0xBF00_0200), false, false, true),
                (ThreadId::interrupt(3), false, true, false),
            ];
            for (id, nil, global, local) in rows {
                assert_eq!((id.is_nil(), id.is_global(), id.is_local()), (nil, global, local), "{id:?}");
            }
        }

        #[test]
        fn global_id_keeps_number_and_version() {
            let id = ThreadId::global(0x1_2345, 0x2A);
            assert_eq!((id.thread_no(), id.version()), (0x1_2345, 0x2A));
            assert_eq!(ThreadId::global(5, ThreadId::VERSION_MAX + 3).version(), 2, "cut to the field");
        }

        #[test]
        fn page_attributes_are_entries_of_the_table() {
            let indices = [Some(0), Some(0), Some(1), Some(2), Some(3), Some(4), None, None, Some(7), None];
            for (raw, index) in indices.into_iter().enumerate() {
                assert_eq!(PageAttribute::from_raw(raw as Word).pat_index(), index, "{raw}");
            }
            assert_eq!(PageAttribute::from_raw(Word::MAX).pat_index(), None);
            let names = [PageAttribute::WRITE_BACK, PageAttribute::UNCACHEABLE, PageAttribute::WRITE_PROTECTED];
            assert_eq!(names.map(PageAttribute::raw), [1, 4, 8]);
        }

        #[test]
        fn fpage_is_refused_unless_size_and_base_fit() {
            let rows = [
                (0x1000, 12, true),
                (0x1400, 10, true),
                (0, Word::BITS - 1, true),
                (0x1000, 9, false),
                (0x1000, 13, false),
                (0x1001, 12, false),
                (0, Word::BITS, false),
            ];
            for (base, size_log2, is_valid) in rows {
                assert_eq!(Fpage::new(base, size_log2, Rights::ALL).is_some(), is_valid, "{base:#x} {size_log2}");
            }
        }

        #[test]
        fn fpage_fields_are_where_the_manual_puts_them() {
            let fpage = Fpage::new(0x40_0000, 22, Rights::READ_WRITE).expect("aligned");
            assert_eq!(fpage.raw(), 0x40_0000 | 22 << 4 | 6);
            assert_eq!((fpage.base(), fpage.last(), fpage.size_log2()), (0x40_0000, 0x7F_FFFF, 22));
            assert_eq!(fpage.rights(), Rights::READ_WRITE);
            assert_eq!(fpage.with_rights(Rights::EXECUTE).raw(), 0x40_0000 | 22 << 4 | 1);
            assert!(fpage.contains(0x7F_FFFF) && !fpage.contains(0x80_0000) && !fpage.contains(0x3F_FFFF));
        }

        #[test]
        fn fpage_base_is_aligned_down_to_the_size() {
            assert_eq!(Fpage::from_raw(0x12_3C00 | 16 << 4).base(), 0x12_0000);
            assert_eq!(Fpage::from_raw(0x12_3C00 | 5 << 4).base(), 0x12_3C00);
        }

        #[test]
        fn complete_space_is_complete_with_any_rights() {
            for raw in [0x10, 0x17, 0x14, 0x18] {
                let fpage = Fpage::from_raw(raw);
                assert!(fpage.is_complete(), "{raw:#x}");
                assert_eq!((fpage.size_log2(), fpage.size_field()), (Word::BITS, 1));
                assert_eq!((fpage.base(), fpage.last()), (0, Word::MAX));
            }
            assert!(!Fpage::from_raw(0x410).is_complete());
            assert!(!Fpage::NIL.is_complete() && Fpage::NIL.is_nil() && !Fpage::NIL.contains(0));
        }

        #[test]
        fn io_fpage_has_port_and_count() {
            let io = IoFpage::new(0x3F8, 3).expect("aligned");
            assert_eq!(io.fpage().raw(), 0x3F8 << 16 | 3 << 10 | 2 << 4);
            assert_eq!((io.port(), io.last(), io.size_log2()), (0x3F8, 0x3FF, 3));
            assert_eq!(io.fpage().as_io(), Some(io));
            assert_eq!(IoFpage::COMPLETE.fpage().as_io(), Some(IoFpage::COMPLETE));
            assert_eq!(IoFpage::COMPLETE.last(), 0xFFFF);
            assert_eq!((IoFpage::new(0x3F9, 1), IoFpage::new(0, 17)), (None, None));
        }

        #[test]
        fn io_fpage_rounds_its_count_up() {
            let rows = [
                (0x3F8, 8, Some(3)),
                (0x3F8, 5, Some(3)),
                (0x60, 1, Some(0)),
                (0xFFFF, 1, Some(0)),
                (0, 0x1_0000, Some(16)),
                (0, 0x8001, Some(16)),
                (0x3F8, 9, None),
                (0, 0x1_0001, None),
                (0, u32::MAX, None),
                (0x60, 0, None),
            ];
            for (port, count, size_log2) in rows {
                let io = IoFpage::of_count(port, count);
                assert_eq!(io.map(IoFpage::size_log2), size_log2, "{port:#x} {count:#x}");
                assert!(io.is_none_or(|io| io.port() == port && io.count() >= count));
            }
        }

        #[test]
        fn io_fpage_is_told_from_memory() {
            assert_eq!(Fpage::new(0x1000, 12, Rights::ALL).and_then(Fpage::as_io), None);
            assert_eq!(Fpage::COMPLETE.as_io(), None);
            assert_eq!(Fpage::from_raw(17 << 10 | 2 << 4).as_io(), None, "more ports than there are");
            assert!(
                Fpage::from_raw(17 << 10 | 2 << 4 | 0xF).is_io() && !Fpage::COMPLETE.is_io() && !Fpage::NIL.is_io()
            );
        }

        #[test]
        fn timeouts_have_send_above_receive() {
            let timeouts = Timeouts::new(Time::from_raw(0x1234), Time::ZERO);
            assert_eq!(timeouts.raw(), 0x1234_0400);
            assert_eq!((timeouts.snd(), timeouts.rcv()), (Time::from_raw(0x1234), Time::ZERO));
        }

        #[test]
        fn tag_fields_are_where_the_manual_puts_them() {
            let tag = MsgTag::new(0xF00F, 3, 4);
            assert_eq!(tag.raw(), 0xF00F << 16 | 4 << 6 | 3);
            assert_eq!((tag.label(), tag.untyped(), tag.typed()), (0xF00F, 3, 4));
            let tag = tag.with_flags(MsgTag::PROPAGATED | MsgTag::ERROR).with_counts(1, 0).with_label(2);
            assert_eq!(tag.raw(), 2 << 16 | 0x9000 | 1);
            assert_eq!(tag.without_flags(MsgTag::ERROR).raw(), 2 << 16 | 0x1000 | 1);
        }

        #[test]
        fn tag_flags_are_single_bits() {
            let flags = |tag: MsgTag| [tag.is_propagated(), tag.is_redirected(), tag.is_xcpu(), tag.is_error()];
            assert_eq!(flags(MsgTag::from_raw(0x1000)), [true, false, false, false]);
            assert_eq!(flags(MsgTag::from_raw(0x2000)), [false, true, false, false]);
            assert_eq!(flags(MsgTag::from_raw(0x4000)), [false, false, true, false]);
            assert_eq!(flags(MsgTag::ERROR_ONLY), [false, false, false, true]);
        }

        #[test]
        fn kernel_label_is_signed_number_over_parameter() {
            let tag = protocol::page_fault_tag(Rights::READ);
            assert_eq!(tag.raw() as SWord, (-2 << 20) | (4 << 16) | 2);
            assert_eq!((tag.protocol(), tag.parameter()), (protocol::PAGE_FAULT, 4));
            assert_eq!(protocol::interrupt_tag().raw() as SWord, -1 << 20);
            assert_eq!(protocol::preemption_tag().raw() as SWord, (-3 << 20) | 2);
            assert_eq!(protocol::exception_tag().raw() as SWord, (-5 << 20) | EXCEPTION_WORDS as SWord);
            assert_eq!(protocol::io_page_fault_tag().raw() as SWord, (-8 << 20) | (6 << 16) | 2);
            assert_eq!(MsgTag::kernel(protocol::SIGMA0_EXTENDED, 0, 2).protocol(), -1001);
        }

        #[test]
        fn first_word_tells_the_kind_of_item() {
            let rows = [
                (0b0000, ItemKind::String),
                (0b0111, ItemKind::String),
                (0b1000, ItemKind::Map),
                (0b1001, ItemKind::Map),
                (0b1010, ItemKind::Grant),
                (0b1100, ItemKind::CtrlXfer),
                (0b1110, ItemKind::Unknown),
            ];
            for (first, kind) in rows {
                assert_eq!(ItemKind::of(0x1234_5000 | first), kind, "{first:#b}");
            }
        }

        #[test]
        fn map_and_grant_items_keep_fpage_and_base() {
            let fpage = Fpage::new(0x8000, 15, Rights::ALL).expect("aligned");
            let (map, grant) = (MapItem::map(fpage, 0x1_0000), MapItem::grant(fpage, 0x400));
            assert_eq!(map.words(), [0x1_0008, fpage.raw()]);
            assert_eq!(grant.words(), [0x40A, fpage.raw()]);
            assert_eq!(MapItem::from_words(map.words()), Some(map));
            assert_eq!(MapItem::from_words(grant.words()), Some(grant));
            assert!(grant.is_grant() && !map.is_grant());
            assert_eq!(MapItem::from_words([0, fpage.raw()]), None, "a string");
        }

        #[test]
        fn string_item_keeps_length_and_substrings() {
            let item = StringItem::new(0x123);
            assert_eq!(item.raw(), 0x123 << 10);
            assert_eq!((item.len_bytes(), item.substrings(), item.words()), (0x123, 1, 2));
            let item = item.with_substrings(32).with_compound().with_more();
            assert_eq!(item.raw(), 0x123 << 10 | 1 << 9 | 31 << 4 | 1);
            assert_eq!((item.substrings(), item.is_compound(), item.has_more()), (32, true, true));
            assert_eq!(item.with_substrings(2).substrings(), 2);
            assert_eq!(StringItem::from_raw(0b100).hints(), 2);
        }

        #[test]
        fn ctrl_xfer_item_keeps_group_and_mask() {
            let item = CtrlXferItem::new(0xAB, 0x3F);
            assert_eq!(item.raw(), 0x3F << 12 | 0xAB << 4 | 12);
            assert_eq!((item.id(), item.mask(), ItemKind::of(item.raw())), (0xAB, 0x3F, ItemKind::CtrlXfer));
        }

        #[test]
        fn acceptor_has_window_and_strings() {
            let window = Fpage::new(0x4000, 14, Rights::ALL).expect("aligned");
            let acceptor = Acceptor::map_grant(window).with_strings();
            assert_eq!(acceptor.raw(), window.raw() & !0xF | 1);
            assert_eq!(acceptor.rcv_window(), window.with_rights(Rights::NONE));
            assert!(acceptor.accepts_strings() && !acceptor.accepts_ctrl_xfer());
            assert!(Acceptor::UNTYPED.rcv_window().is_nil());
            assert_eq!(Acceptor::COMPLETE.raw(), 0x10);
            assert!(Acceptor::COMPLETE.rcv_window().is_complete());
        }

        #[test]
        fn ipc_error_has_phase_kind_and_offset() {
            let error = IpcError { phase: Phase::Receive, kind: IpcErrorKind::Overflow, offset: 252 };
            assert_eq!(error.raw(), 252 << 4 | 4 << 1 | 1);
            assert_eq!(IpcError::new(Phase::Send, IpcErrorKind::Timeout).raw(), 2);
            for raw in 2..0x1000 {
                let kind = raw >> 1 & 7;
                assert_eq!(IpcError::from_raw(raw).map(IpcError::raw), (kind != 0).then_some(raw));
            }
        }

        #[test]
        fn start_and_stop_controls_are_the_librarys() {
            assert_eq!(ExregsControl::START.raw(), 0x106);
            assert_eq!((ExregsControl::START | ExregsControl::SP | ExregsControl::IP).raw(), 0x11E);
            assert_eq!(ExregsControl::STOP.raw(), 0x301);
            assert_eq!((ExregsControl::STOP | ExregsControl::ABORT_IPC).raw(), 0x307);
            assert_eq!((ExregsControl::FLAGS | ExregsControl::HANDLE | ExregsControl::PAGER).raw(), 0xE0);
        }

        #[test]
        fn thread_state_tells_what_was_going_on() {
            let state = ThreadState::HALTED | ThreadState::SENDING;
            assert_eq!(state.raw(), 5);
            assert!(state.was_halted() && state.was_sending() && state.was_ipcing() && !state.was_receiving());
        }

        #[test]
        fn schedule_results_count_from_error() {
            for raw in 0..8 {
                assert_eq!(ScheduleResult::from_raw(raw).map(ScheduleResult::raw), Some(raw));
            }
            assert_eq!(ScheduleResult::from_raw(8), None);
        }

        #[test]
        fn time_control_has_slice_above_quantum() {
            let time = TimeControl::new(Time::from_raw(0x1271), Time::NEVER);
            assert_eq!(time.raw(), 0x1271_0000);
            assert_eq!((time.timeslice(), time.total_quantum()), (Time::from_raw(0x1271), Time::NEVER));
            assert!(!time.is_no_change() && TimeControl::NO_CHANGE.is_no_change());
        }

        #[test]
        fn priority_field_has_nine_bits() {
            let rows = [
                (0, Some(0)),
                (255, Some(255)),
                (256, None),
                (510, None),
                (0x1FF, None),
                (7 << 9 | 0x1FF, None),
                (50 << 16 | 0xFFFF, None),
                (50 << 16 | 40, Some(40)),
                (Word::MAX, None),
            ];
            for (raw, priority) in rows {
                assert_eq!(PrioControl::from_raw(raw).priority(), priority, "{raw:#x}");
            }
            assert_eq!(PrioControl::from_raw(50 << 16 | 7 << 9 | 0x1FF).logid(), 7);
            assert_eq!(PrioControl::from_raw(50 << 16 | 0xFFFF).stride(), 50);
        }

        #[test]
        fn processor_is_left_alone_by_all_ones() {
            assert_eq!(ProcessorControl::new(3).processor(), Some(3));
            assert_eq!(ProcessorControl::NO_CHANGE.processor(), None);
        }

        #[test]
        fn preemption_control_has_priority_above_delay() {
            let control = PreemptionControl::new(200, 5000);
            assert_eq!(control.raw(), 200 << 16 | 5000);
            assert_eq!((control.sensitive_priority(), control.max_delay_us()), (200, 5000));
            assert!(!control.is_hs_extended() && !PreemptionControl::NO_CHANGE.is_hs_extended());
            assert!(PreemptionControl::from_raw(1 << 25).is_hs_extended());
        }

        #[test]
        fn unmap_control_counts_from_one() {
            assert_eq!((UnmapControl::unmap(1).raw(), UnmapControl::flush(64).raw()), (0, 0x7F));
            assert_eq!((UnmapControl::flush(64).count(), UnmapControl::flush(64).is_flush()), (64, true));
            assert!(!UnmapControl::unmap(64).is_flush());
        }

        #[test]
        fn memory_info_splits_the_word_in_halves() {
            let info = MemoryInfo::new(5, 0x340);
            assert_eq!(info.raw(), 0x340 << (Word::BITS / 2) | 5);
            assert_eq!((info.n(), info.ptr(), info.with_n(9).n(), info.with_n(9).ptr()), (5, 0x340, 9, 0x340));
        }

        #[test]
        fn thread_info_names_the_initial_threads() {
            let info = ThreadInfo::new(THREAD_ID_BITS, 24, 56);
            assert_eq!(info.raw(), 56 << 20 | 24 << 8 | THREAD_ID_BITS as Word);
            assert_eq!((info.bits(), info.system_base(), info.user_base()), (THREAD_ID_BITS, 24, 56));
            assert_eq!(info.sigma0(), ThreadId::global(56, 1));
            assert_eq!(info.sigma1(), ThreadId::global(57, 1));
            assert_eq!(info.root_task(), ThreadId::global(58, 1));
            assert_eq!(info.kernel(), ThreadId::global(24, 1));
        }

        #[test]
        fn processor_info_counts_from_one() {
            let info = ProcessorInfo::new(4);
            assert_eq!(info.raw(), (PROCESSOR_DESCRIPTOR_LOG2 as Word) << (Word::BITS - 4) | 3);
            assert_eq!((info.count(), info.descriptor_log2()), (4, PROCESSOR_DESCRIPTOR_LOG2));
            assert_eq!(size_of::<ProcessorDescriptor>(), 1 << PROCESSOR_DESCRIPTOR_LOG2);
        }

        #[test]
        fn clock_info_has_schedule_above_read() {
            let info = ClockInfo::new(Time::period_us(1), Time::period_us(10));
            assert_eq!(info.raw(), 10 << 16 | 1);
            assert_eq!((info.read_precision().raw(), info.schedule_precision().raw()), (1, 10));
        }

        #[test]
        fn utcb_and_kip_info_give_sizes() {
            assert_eq!(UtcbInfo::X86.size_bytes(), UTCB_SIZE as Word);
            assert_eq!((UtcbInfo::X86.align_log2(), UtcbInfo::X86.area_log2()), (UTCB_ALIGN_LOG2, 12));
            assert_eq!(UtcbInfo::X86.raw(), 12 << 16 | (UTCB_ALIGN_LOG2 as Word) << 10 | 1);
            assert_eq!((KipAreaInfo::X86.raw(), KipAreaInfo::X86.size_log2()), (12, 12));
            assert_eq!(1 << ROOT_UTCB_AREA_LOG2, ROOT_UTCB_COUNT * UTCB_SIZE);
        }

        #[test]
        fn page_info_keeps_sizes_in_place() {
            assert_eq!((PAGE_INFO.min_log2(), PAGE_INFO.size_mask() & 0xFFF), (12, 0));
            assert_eq!(PageInfo::new(PAGE_INFO.rights(), PAGE_INFO.size_mask()), PAGE_INFO);
        }

        #[test]
        fn memory_descriptor_ends_are_inclusive() {
            let descriptor = MemoryDescriptor::new(MemoryType::Conventional, 0x10_0000, 0x1F_FFFF).with_subtype(1);
            assert_eq!(descriptor.words(), [0x10_0011, 0x1F_FC00]);
            assert_eq!((descriptor.low(), descriptor.high()), (0x10_0000, 0x1F_FFFF));
            assert_eq!((descriptor.kind(), descriptor.subtype()), (MemoryType::Conventional, 1));
            assert!(!descriptor.is_virtual() && descriptor.as_virtual().is_virtual());
            assert_eq!(descriptor.as_virtual().words()[0], 0x10_0211);
        }

        #[test]
        fn memory_descriptor_of_everything_ends_at_the_last_address() {
            let descriptor = MemoryDescriptor::new(MemoryType::Shared, 0, Word::MAX);
            assert_eq!(descriptor.words(), [4, !0x3FF]);
            assert_eq!(descriptor.high(), Word::MAX);
        }

        #[test]
        fn kernel_descriptor_words_read_in_order() {
            assert_eq!(KernelDescriptor::supplier_word(*b"UKa "), 0x2061_4B55);
            assert_eq!(KernelDescriptor::version_word(0, 4, 7), 0x0004_0007);
            let date = GenerationDate::new(2025, 11, 23);
            assert_eq!(date.raw(), 25 << 9 | 11 << 5 | 23);
            assert_eq!((date.year(), date.month(), date.day()), (2025, 11, 23));
        }

        #[test]
        fn kip_begins_with_the_magic_bytes() {
            assert_eq!(&KIP_MAGIC[..4], &[0x4C, 0x34, 0xE6, 0x4B]);
            assert!(KIP_MAGIC[4..].iter().all(|byte| *byte == 0));
            assert_eq!(Kip::ZERO.magic, KIP_MAGIC);
        }

        #[test]
        fn kip_fields_are_at_their_words() {
            let rows = [
                ("magic", core::mem::offset_of!(Kip, magic), 0),
                ("ApiVersion", core::mem::offset_of!(Kip, api_version), 1),
                ("ApiFlags", core::mem::offset_of!(Kip, api_flags), 2),
                ("KernelDescPtr", core::mem::offset_of!(Kip, kernel_desc_ptr), 3),
                ("kdebug init", core::mem::offset_of!(Kip, kdebug_init), 4),
                ("kdebug entry", core::mem::offset_of!(Kip, kdebug_entry), 5),
                ("kdebug low", core::mem::offset_of!(Kip, kdebug_low), 6),
                ("kdebug high", core::mem::offset_of!(Kip, kdebug_high), 7),
                ("sigma0", core::mem::offset_of!(Kip, sigma0), 8),
                ("sigma1", core::mem::offset_of!(Kip, sigma1), 12),
                ("root server", core::mem::offset_of!(Kip, root_server), 16),
                ("MemoryInfo", core::mem::offset_of!(Kip, memory_info), 21),
                ("kdebug config", core::mem::offset_of!(Kip, kdebug_config), 22),
                ("MainMem", core::mem::offset_of!(Kip, main_mem), 24),
                ("ReservedMem", core::mem::offset_of!(Kip, reserved_mem), 26),
                ("DedicatedMem", core::mem::offset_of!(Kip, dedicated_mem), 30),
                ("UtcbInfo", core::mem::offset_of!(Kip, utcb_info), 42),
                ("KipAreaInfo", core::mem::offset_of!(Kip, kip_area_info), 43),
                ("BootInfo", core::mem::offset_of!(Kip, boot_info), 46),
                ("ProcDescPtr", core::mem::offset_of!(Kip, processor_desc_ptr), 47),
                ("ClockInfo", core::mem::offset_of!(Kip, clock_info), 48),
                ("ThreadInfo", core::mem::offset_of!(Kip, thread_info), 49),
                ("PageInfo", core::mem::offset_of!(Kip, page_info), 50),
                ("ProcessorInfo", core::mem::offset_of!(Kip, processor_info), 51),
                ("SpaceControl", core::mem::offset_of!(Kip, system_calls.space_control), 52),
                ("ThreadControl", core::mem::offset_of!(Kip, system_calls.thread_control), 53),
                ("ProcessorControl", core::mem::offset_of!(Kip, system_calls.processor_control), 54),
                ("MemoryControl", core::mem::offset_of!(Kip, system_calls.memory_control), 55),
                ("Ipc", core::mem::offset_of!(Kip, system_calls.ipc), 56),
                ("Lipc", core::mem::offset_of!(Kip, system_calls.lipc), 57),
                ("Unmap", core::mem::offset_of!(Kip, system_calls.unmap), 58),
                ("ExchangeRegisters", core::mem::offset_of!(Kip, system_calls.exchange_registers), 59),
                ("SystemClock", core::mem::offset_of!(Kip, system_calls.system_clock), 60),
                ("ThreadSwitch", core::mem::offset_of!(Kip, system_calls.thread_switch), 61),
                ("Schedule", core::mem::offset_of!(Kip, system_calls.schedule), 62),
                ("ArchSyscall", core::mem::offset_of!(Kip, arch_system_calls), 68),
                ("end", size_of::<Kip>(), 72),
            ];
            for (field, offset, word) in rows {
                assert_eq!(offset, word * WORD_SIZE, "{field}");
            }
        }

        #[test]
        fn utcb_registers_read_what_was_set() {
            let utcb = Utcb::new();
            utcb.set_tag(MsgTag::new(1, 2, 3));
            utcb.set_acceptor(Acceptor::COMPLETE);
            utcb.set_actual_sender(ThreadId::global(9, 1));
            assert_eq!((utcb.tag(), utcb.acceptor()), (MsgTag::new(1, 2, 3), Acceptor::COMPLETE));
            assert_eq!((utcb.virtual_sender(), utcb.actual_sender()), (ThreadId::global(9, 1), ThreadId::global(9, 1)));
            assert_eq!(utcb.raise_preempt_flags(PreemptFlags::DELAY), PreemptFlags::NONE);
            assert_eq!(utcb.lower_preempt_flags(PreemptFlags::DELAY), PreemptFlags::DELAY);
            assert_eq!(utcb.preempt_flags(), 0);
            utcb.clear();
            assert_eq!((utcb.tag(), utcb.acceptor()), (MsgTag::NIL, Acceptor::UNTYPED));
        }

        #[test]
        fn sigma0_request_for_any_page_has_all_ones_for_a_base() {
            let request = protocol::Sigma0Request::any(21);
            assert!(request.is_any());
            assert_eq!(request.words(), [!0x3FF | 21 << 4, 0, 0]);
            assert_eq!(request.tag().raw() as SWord, (-6 << 20) | 2);
            assert_eq!(protocol::Sigma0Request::reply_tag().raw(), 2 << 6);
        }

        #[test]
        fn sigma0_request_with_bit_three_has_a_third_word() {
            let fpage = Fpage::new(0x1000, 12, Rights::ALL).expect("aligned").with_extended();
            let request = protocol::Sigma0Request::page(fpage);
            assert!(!request.is_any());
            assert_eq!(request.tag().untyped(), 3);
        }

        #[test]
        fn boot_records_have_their_words() {
            assert_eq!(core::mem::offset_of!(bootinfo::SimpleExec, initial_ip), 12 * WORD_SIZE);
            assert_eq!(core::mem::offset_of!(bootinfo::SimpleExec, cmdline), 15 * WORD_SIZE);
            assert_eq!(core::mem::offset_of!(bootinfo::Module, cmdline), 5 * WORD_SIZE);
            assert_eq!(core::mem::offset_of!(bootinfo::Multiboot, address), 3 * WORD_SIZE);
            assert_eq!(core::mem::offset_of!(bootinfo::Header, records), 4 * WORD_SIZE);
        }
    };
}
use width_independent_tests;

/// Register tables of the manual that have no width.
mod numbers {
    use crate::common::*;

    #[test]
    fn system_errors_have_the_manuals_numbers() {
        for (index, error) in SysError::ALL.into_iter().enumerate() {
            assert_eq!(error.raw() as usize, index + 1);
            assert_eq!(SysError::from_raw(error.raw().into()), Some(error));
        }
        assert_eq!((SysError::from_raw(0), SysError::from_raw(9)), (None, None));
        assert_eq!((SysError::InvalidSpace.raw(), SysError::OutOfMemory.raw()), (3, 8));
    }

    #[test]
    fn ipc_errors_have_the_manuals_numbers() {
        for (index, kind) in IpcErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.raw() as usize, index + 1);
            assert_eq!(kind.is_in_transfer(), index >= 3, "{kind:?}");
        }
        assert_eq!((IpcErrorKind::from_raw(0), IpcErrorKind::from_raw(8)), (None, None));
    }

    #[test]
    fn memory_types_have_the_manuals_numbers() {
        let rows = [
            (0, MemoryType::Undefined),
            (1, MemoryType::Conventional),
            (2, MemoryType::Reserved),
            (3, MemoryType::Dedicated),
            (4, MemoryType::Shared),
            (5, MemoryType::Undefined),
            (0xE, MemoryType::BootLoader),
            (0xF, MemoryType::Architecture),
        ];
        for (raw, kind) in rows {
            assert_eq!(MemoryType::from_raw(raw), kind, "{raw}");
        }
    }

    #[test]
    fn preempt_flags_have_the_manuals_bits() {
        let flags = [PreemptFlags::SIGNAL, PreemptFlags::DELAY, PreemptFlags::PENDING];
        assert_eq!(flags.map(PreemptFlags::raw), [0x20, 0x40, 0x80]);
    }
}
