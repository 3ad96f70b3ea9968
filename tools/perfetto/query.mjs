// Asks Perfetto's trace processor about a trace: node query.mjs ENGINE TRACE QUERIES
//
// ENGINE is the folder of the engine as the viewer's web pages carry it: engine_bundle.js with its .wasm files. QUERIES is a
// file with queries in SQL, a line each. For each a line of JSON is printed: an array of rows, each an array of its cells.
// When the trace or a query has an error, that goes to stderr, and the status is 1.
//
// The engine is made for a worker of a browser: it loads its code by a request that it waits for, is sent a port first, and
// speaks Perfetto's TraceProcessorRpcStream over that port. Here it gets a world of its own with just these things in it.

import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { createContext, runInContext } from "node:vm";

/** Bytes of the trace that are sent at a time. */
const PIECE = 16 << 20;

/** Methods of the engine, as TraceProcessorRpc numbers them. */
const Method = { APPEND_TRACE_DATA: 1, FINALIZE_TRACE_DATA: 2, QUERY_STREAMING: 3 };

/** Fields of TraceProcessorRpc. */
const Rpc = {
    SEQ: 1,
    FATAL_ERROR: 5,
    REQUEST: 2,
    APPEND_TRACE_DATA: 101,
    QUERY_ARGS: 103,
    APPEND_RESULT: 201,
    QUERY_RESULT: 203,
    FINALIZE_RESULT: 212,
};

/** Fields of the messages in it, and kinds of cells. */
const Query = { SQL: 1, ERROR: 2, BATCH: 3 };
const Batch = { CELLS: 1, INTEGERS: 2, FLOATS: 3, BLOBS: 4, STRINGS: 5 };
const Cell = { NULL: 1, INTEGER: 2, FLOAT: 3, STRING: 4, BLOB: 5 };

// Protocol buffers: a field is its number with the kind of what follows, which is a number or bytes with their length.

const VARINT = 0, FIXED64 = 1, BYTES = 2;

function varint(number) {
    const bytes = [];
    for (; number > 127; number = Math.floor(number / 128)) bytes.push((number % 128) | 128);
    return Buffer.from([...bytes, number]);
}

function number(field, value) {
    return Buffer.concat([varint(field * 8 + VARINT), varint(value)]);
}

function bytes(field, value) {
    const content = Buffer.from(value);
    return Buffer.concat([varint(field * 8 + BYTES), varint(content.length), content]);
}

/** A number of up to 64 bits, and where it ends. */
function readVarint(from, at) {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
        const byte = from[at++];
        if (byte === undefined) throw new Error("a message of the engine is cut off");
        value |= BigInt(byte & 127) << shift;
        if (byte < 128) return [value, at];
    }
}

/** The fields of a message, as pairs of number and content. */
function* fields(message) {
    for (let at = 0; at < message.length; ) {
        let key, content;
        [key, at] = readVarint(message, at);
        const kind = Number(key & 7n);
        if (kind === VARINT) {
            [content, at] = readVarint(message, at);
        } else if (kind === BYTES || kind === FIXED64) {
            let length = 8n;
            if (kind === BYTES) [length, at] = readVarint(message, at);
            content = message.subarray(at, (at += Number(length)));
        } else {
            throw new Error(`a message of the engine has a field of kind ${kind}`);
        }
        yield [Number(key >> 3n), content];
    }
}

/** All numbers of a packed field. */
function* packed(content) {
    for (let at = 0, value; at < content.length; ) {
        [value, at] = readVarint(content, at);
        yield value;
    }
}

/** The cells of one batch of a result, in their order. */
function cells(batch) {
    const kinds = [], integers = [], floats = [], blobs = [], strings = [];
    for (const [field, content] of fields(batch)) {
        if (field === Batch.CELLS) kinds.push(...packed(content));
        if (field === Batch.INTEGERS) integers.push(...packed(content));
        if (field === Batch.FLOATS) for (let at = 0; at < content.length; at += 8) floats.push(content.readDoubleLE(at));
        if (field === Batch.BLOBS) blobs.push(content.toString("hex"));
        // Each string ends with a zero.
        if (field === Batch.STRINGS) strings.push(...content.toString("utf8").split("\0").slice(0, -1));
    }
    const next = {
        [Cell.NULL]: () => null,
        [Cell.INTEGER]: () => Number(BigInt.asIntN(64, integers.shift())),
        [Cell.FLOAT]: () => floats.shift(),
        [Cell.STRING]: () => strings.shift(),
        [Cell.BLOB]: () => blobs.shift(),
    };
    return kinds.map((kind) => next[kind]());
}

/** The engine, and what it has answered. */
class Engine {
    #port = {};
    #bytes;
    #answers = [];
    #sent = 0;

    /** Loads it from a folder. */
    static async load(folder) {
        const read = (file) => new Uint8Array(readFileSync(join(folder, basename(String(file))))).buffer;
        class Request {
            open(_method, file) {
                this.file = file;
            }
            send() {
                this.response = read(this.file);
            }
        }
        const quiet = () => {};
        const world = createContext({
            WorkerGlobalScope: class {},
            XMLHttpRequest: Request,
            URL,
            console: { log: quiet, warn: quiet, error: quiet },
            location: { href: "http://localhost/engine_bundle.js" },
            performance,
            setTimeout,
        });
        world.self = world;
        runInContext(readFileSync(join(folder, "engine_bundle.js"), "utf8"), world);
        const engine = new Engine();
        engine.#port.postMessage = (bytes) => engine.#answers.push(Buffer.from(bytes));
        engine.#bytes = runInContext("(bytes) => new Uint8Array(bytes)", world);
        world.onmessage({ data: engine.#port });
        // It begins when all that it has put off is done.
        await new Promise((resolve) => setTimeout(resolve));
        return engine;
    }

    /** Asks it for something; the answers, which are messages TraceProcessorRpc. */
    #ask(method, ...more) {
        const message = Buffer.concat([number(Rpc.SEQ, ++this.#sent), number(Rpc.REQUEST, method), ...more]);
        this.#port.onmessage({ data: this.#bytes(bytes(1, message)) });
        const stream = Buffer.concat(this.#answers.splice(0));
        const answers = [...fields(stream)].map(([, answer]) => [...fields(answer)]);
        if (answers.length === 0) throw new Error("the engine does not answer");
        for (const [field, content] of answers.flat()) {
            if (field === Rpc.FATAL_ERROR) throw new Error(content.toString());
        }
        return answers.flat();
    }

    /** Gives it a whole trace. */
    read(trace) {
        for (let at = 0; at < trace.length; at += PIECE) {
            const piece = bytes(Rpc.APPEND_TRACE_DATA, trace.subarray(at, at + PIECE));
            refuseErrors(this.#ask(Method.APPEND_TRACE_DATA, piece), Rpc.APPEND_RESULT, 2);
        }
        refuseErrors(this.#ask(Method.FINALIZE_TRACE_DATA), Rpc.FINALIZE_RESULT, 1);
    }

    /** The rows of a query. */
    query(sql) {
        const answers = this.#ask(Method.QUERY_STREAMING, bytes(Rpc.QUERY_ARGS, bytes(Query.SQL, sql)));
        refuseErrors(answers, Rpc.QUERY_RESULT, Query.ERROR);
        const parts = answers.filter(([field]) => field === Rpc.QUERY_RESULT).flatMap(([, part]) => [...fields(part)]);
        const columns = parts.filter(([field]) => field === 1).length;
        const all = parts.filter(([field]) => field === Query.BATCH).flatMap(([, batch]) => cells(batch));
        return Array.from({ length: columns && all.length / columns }, (_, row) => all.slice(row * columns, (row + 1) * columns));
    }
}

/** Throws if one of the answers `kind` has something in its field for errors. */
function refuseErrors(answers, kind, field) {
    const results = answers.filter(([found]) => found === kind).flatMap(([, result]) => [...fields(result)]);
    const error = results.find(([found, text]) => found === field && text.length > 0);
    if (error) throw new Error(error[1].toString());
}

const [folder, trace, queries] = process.argv.slice(2);
try {
    const engine = await Engine.load(folder);
    engine.read(readFileSync(trace));
    for (const sql of readFileSync(queries, "utf8").split("\n").filter((line) => line.trim())) {
        console.log(JSON.stringify(engine.query(sql)));
    }
} catch (error) {
    console.error(error.message);
    process.exitCode = 1;
}
