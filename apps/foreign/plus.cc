/* The interface as C++ programs use it: overloads that differ by the types of words, operators, objects that are there
 * before main, virtual functions through tables in data that spaces share.
 */
#include "world.h"

namespace {

struct Id {
    word raw;
    explicit Id(word raw) : raw(raw) {}
    Id(word number, word version) : raw(x2_id(number, version)) {}
    bool operator==(const Id &other) const { return raw == other.raw; }
    bool operator!=(const Id &other) const { return raw != other.raw; }
};

struct Fpage {
    word raw;
    Fpage(word base, word log2) : raw(x2_fpage(base, log2, 0)) {}
    Fpage operator+(word rights) const { Fpage sum(*this); sum.raw |= rights; return sum; }
    Fpage operator-(word rights) const { Fpage rest(*this); rest.raw &= ~rights; return rest; }
};

struct MapItem {
    Fpage fpage;
    word base;
};

struct Message {
    word words[64];
    Message() : words() {}
    explicit Message(word label) : words() { words[0] = x2_tag(label, 0, 0); }

    word untyped() const { return x2_untyped(words[0]); }
    word typed() const { return x2_typed(words[0]); }

    Message &append(word value)
    {
        words[1 + untyped()] = value;
        words[0] += 1;
        return *this;
    }

    Message &append(const MapItem &item)
    {
        word *at = words + 1 + untyped() + typed();
        at[0] = x2_map_item(item.base);
        at[1] = item.fpage.raw;
        words[0] += 2 << 6;
        return *this;
    }

    void load() const
    {
        for (word i = 0; i <= untyped() + typed(); i++)
            x2_mr()[i] = words[i];
    }

    void store(word tag)
    {
        words[0] = tag;
        for (word i = 1; i <= untyped() + typed(); i++)
            words[i] = x2_mr()[i];
    }
};

class Operation {
public:
    virtual word apply(word a, word b) const { return a + b; }
};

class Product : public Operation {
public:
    word apply(word a, word b) const override { return a * b; }
};

/* Objects that need a constructor before main; the second leans on the first. */
struct Made {
    word stamp;
    explicit Made(word before) : stamp(before + 1) {}
};
Made first(41), second(first.stamp);
const Product product;
const Operation *volatile operation = &product;

enum { SERVER = 1, CLIENT = 2 };
Message answer;
word received;

void serve_products()
{
    word from, tag = x2_wait(&from);
    for (;;) {
        Message request;
        request.store(tag);
        Message(0xF00D).append(operation->apply(request.words[1], request.words[2])).load();
        tag = x2_reply_wait(from, &from);
    }
}

void ask()
{
    Message(0xF00F).append(6).append(7).load();
    answer.store(x2_call(thread_id(SERVER)));
    done();
}

byte window[4096] __attribute__((aligned(4096)));
byte given[4096] __attribute__((aligned(4096)));

void take_page()
{
    *x2_br(0) = (Fpage((word)window, 12) + X2_RWX).raw & ~0xFUL;
    Message taken;
    taken.store(tell());
    received = taken.typed() == 2 && taken.words[1] == 0x77 ? *(volatile byte *)window : 0;
    done();
}

void test_calls()
{
    make_thread_in_new_space(SERVER);
    make_thread_in_new_space(CLIENT);
    run_thread(SERVER, serve_products);
    run_thread(CLIENT, ask);
    serve(1);
    check_equal("a call through a virtual function in another space", answer.words[1], 42);
    check_equal("  has one word", answer.words[0], x2_tag(0xF00D, 0, 1));
    kill_thread(SERVER);
    kill_thread(CLIENT);
}

void test_items()
{
    given[0] = 0x42;
    make_thread_in_new_space(CLIENT);
    run_thread(CLIENT, take_page);
    serve(1);
    Message(0).append(0x77).append(MapItem{Fpage((word)given, 12) + X2_R + X2_W - X2_W, 0}).load();
    (void)x2_send(thread_id(CLIENT), X2_NEVER);
    serve(1);
    check_equal("a page among the words of a message", received, 0x42);
    kill_thread(CLIENT);
}

} // namespace

int main(void)
{
    main_thread = x2_my_id();
    touch_image();
    check_equal("constructors ran, in their order", second.stamp, 43);
    check("ids are compared", Id(x2_my_id()) == Id(x2_user_base() + 2, 1) && Id(X2_NIL) != Id(X2_ANY));
    test_calls();
    test_items();
    finish();
}
