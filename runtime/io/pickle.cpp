// Opcodes and their names: CPython Lib/pickletools.py, protocols 2 to 5.
#include "runtime/io/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

enum Opcode : uint8_t {
  op_mark = '(', op_stop = '.', op_pop = '0', op_pop_mark = '1', op_dup = '2',
  op_binint = 'J', op_binint1 = 'K', op_binint2 = 'M', op_binfloat = 'G', op_none = 'N',
  op_binpersid = 'Q', op_reduce = 'R', op_binstring = 'T', op_short_binstring = 'U',
  op_binunicode = 'X', op_append = 'a', op_build = 'b', op_global = 'c', op_append_many = 'e',
  op_binget = 'h', op_long_binget = 'j', op_binput = 'q', op_long_binput = 'r', op_setitem = 's',
  op_tuple = 't', op_setitems = 'u', op_empty_list = ']', op_empty_tuple = ')',
  op_empty_dict = '}', op_binbytes = 'B', op_short_binbytes = 'C', op_proto = 0x80,
  op_newobj = 0x81, op_tuple1 = 0x85, op_tuple2 = 0x86, op_tuple3 = 0x87, op_true = 0x88,
  op_false = 0x89, op_long1 = 0x8a, op_long4 = 0x8b, op_short_binunicode = 0x8c,
  op_binunicode8 = 0x8d, op_binbytes8 = 0x8e, op_empty_set = 0x8f, op_add_items = 0x90,
  op_frozenset = 0x91, op_stack_global = 0x93, op_memoize = 0x94, op_frame = 0x95,
};

constexpr int newest_protocol = 5;
constexpr uint64_t longest_integer = 1024;  // bytes; conversion to decimal is quadratic

// Little-endian two's complement of any length, as decimal text.
std::string decimal(ByteSpan bytes) {
  std::vector<uint8_t> magnitude(bytes.size());
  const bool negative = !bytes.empty() && (static_cast<uint8_t>(bytes.back()) & 0x80);
  unsigned carry = negative ? 1 : 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const unsigned byte = static_cast<uint8_t>(bytes[i]);
    const unsigned sum = (negative ? (~byte & 0xFFu) : byte) + carry;
    magnitude[i] = static_cast<uint8_t>(sum);
    carry = sum >> 8;
  }
  std::string digits;
  while (std::any_of(magnitude.begin(), magnitude.end(), [](uint8_t b) { return b != 0; })) {
    unsigned rest = 0;
    for (size_t i = magnitude.size(); i-- > 0;) {
      rest = rest * 256 + magnitude[i];
      magnitude[i] = static_cast<uint8_t>(rest / 10);
      rest %= 10;
    }
    digits.push_back(static_cast<char>('0' + rest));
  }
  if (digits.empty()) return "0";
  if (negative) digits.push_back('-');
  return {digits.rbegin(), digits.rend()};
}

class Machine {
 public:
  Machine(ByteReader& in, Document& document, PickleHost& host)
      : in_(in), document_(document), host_(host) {}

  NodeId run() {
    for (;;) {
      if (in_.remaining() == 0) in_.fail_here("the pickle ends without STOP");
      const uint8_t code = in_.u8();
      if (code == op_stop) return pop();
      if (!step_value(code) && !step_text(code) && !step_container(code) && !step_machine(code))
        refuse(code);
    }
  }

 private:
  bool step_value(uint8_t code) {
    switch (code) {
      case op_none: push(document_.add({})); return true;
      case op_true: push(document_.add_number(ValueKind::boolean, 1)); return true;
      case op_false: push(document_.add_number(ValueKind::boolean, 0)); return true;
      case op_binint: push_integer(in_.i32()); return true;
      case op_binint1: push_integer(in_.u8()); return true;
      case op_binint2: push_integer(in_.u16()); return true;
      case op_long1: push_long(in_.u8()); return true;
      case op_long4: {
        const int32_t size = in_.i32();
        if (size < 0) in_.fail_here("integer of negative length");
        push_long(static_cast<uint64_t>(size));
        return true;
      }
      case op_binfloat:  // the one big-endian number of the format
        push(document_.add_real(std::bit_cast<double>(__builtin_bswap64(in_.u64()))));
        return true;
      default: return false;
    }
  }

  bool step_text(uint8_t code) {
    switch (code) {
      case op_binunicode: push_string(in_.u32()); return true;
      case op_short_binunicode: push_string(in_.u8()); return true;
      case op_binunicode8: push_string(in_.u64()); return true;
      case op_short_binbytes: push_bytes(in_.u8()); return true;
      case op_binbytes: push_bytes(in_.u32()); return true;
      case op_binbytes8: push_bytes(in_.u64()); return true;
      // Python 2 strings: text where they can be, bytes (of NumPy scalars) otherwise.
      case op_short_binstring: push_old_string(in_.u8()); return true;
      case op_binstring: push_old_string(in_.u32()); return true;
      default: return false;
    }
  }

  bool step_container(uint8_t code) {
    switch (code) {
      case op_empty_list: push_container(ValueKind::list, {}); return true;
      case op_empty_dict: push_container(ValueKind::dict, {}); return true;
      case op_empty_set: push_container(ValueKind::set, {}); return true;
      case op_empty_tuple: push_container(ValueKind::tuple, {}); return true;
      case op_tuple1: push_container(ValueKind::tuple, pop_many(1)); return true;
      case op_tuple2: push_container(ValueKind::tuple, pop_many(2)); return true;
      case op_tuple3: push_container(ValueKind::tuple, pop_many(3)); return true;
      case op_tuple: push_container(ValueKind::tuple, pop_to_mark()); return true;
      case op_frozenset: push_container(ValueKind::set, pop_to_mark()); return true;
      case op_append: extend(ValueKind::list, pop_many(1)); return true;
      case op_append_many: extend(ValueKind::list, pop_to_mark()); return true;
      case op_add_items: extend(ValueKind::set, pop_to_mark()); return true;
      case op_setitem: set_items(pop_many(2)); return true;
      case op_setitems: set_items(pop_to_mark()); return true;
      default: return false;
    }
  }

  bool step_machine(uint8_t code) {
    switch (code) {
      case op_proto: {
        const int protocol = in_.u8();
        if (protocol > newest_protocol)
          in_.fail_here(fmt::format("pickle protocol {}; at most {} is known", protocol,
                                    newest_protocol));
        return true;
      }
      case op_frame: {
        const uint64_t size = in_.u64();
        if (size > in_.remaining())
          in_.fail_here(fmt::format("frame of {} bytes with {} left", size, in_.remaining()));
        return true;
      }
      case op_mark: marks_.push_back(stack_.size()); return true;
      case op_pop: pop(); return true;
      case op_pop_mark: pop_to_mark(); return true;
      case op_dup: push(top()); return true;
      case op_memoize: remember(static_cast<uint32_t>(memo_.size())); return true;
      case op_binput: remember(in_.u8()); return true;
      case op_long_binput: remember(in_.u32()); return true;
      case op_binget: recall(in_.u8()); return true;
      case op_long_binget: recall(in_.u32()); return true;
      default: return step_host(code);
    }
  }

  bool step_host(uint8_t code) {
    switch (code) {
      case op_global: {
        const std::string_view module = in_.line();
        push(host_.global(module, in_.line()));
        return true;
      }
      case op_stack_global: {
        const std::vector<NodeId> names = pop_many(2);
        for (NodeId id : names)
          if (document_.node(id).kind != ValueKind::string)
            in_.fail_here("a global is not named by two strings");
        // Copies: the host may add texts, which moves the stored ones.
        const std::string module = document_.text(names[0]), name = document_.text(names[1]);
        push(host_.global(module, name));
        return true;
      }
      case op_reduce:
      case op_newobj: {
        const std::vector<NodeId> parts = pop_many(2);
        if (document_.node(parts[1]).kind != ValueKind::tuple)
          in_.fail_here("the arguments of a call are not a tuple");
        push(host_.call(parts[0], parts[1]));
        return true;
      }
      case op_build: {
        const NodeId state = pop();
        host_.set_state(top(), state);
        return true;
      }
      case op_binpersid: push(host_.persistent(pop())); return true;
      default: return false;
    }
  }

  [[noreturn]] void refuse(uint8_t code) const {
    if (code == 'i' || code == 'o' || code == 'P')
      in_.fail_here(fmt::format("opcode '{}' makes objects or loads them by text; tensors need "
                                "neither, and it is not run",
                                static_cast<char>(code)));
    if (std::string_view("FILSVdglp").find(static_cast<char>(code)) != std::string_view::npos)
      in_.fail_here(fmt::format("opcode '{}' of the text pickles of protocol 0, which torch.save "
                                "does not write", static_cast<char>(code)));
    in_.fail_here(fmt::format("unknown pickle opcode 0x{:02x}", code));
  }

  // The stack, never below the last mark: what is under it belongs to an unfinished container.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(NodeId id) { stack_.push_back(id); }
  NodeId top() const {
    if (stack_.size() <= floor()) in_.fail_here("the pickle takes more values than it made");
    return stack_.back();
  }
  NodeId pop() {
    const NodeId id = top();
    stack_.pop_back();
    return id;
  }
  std::vector<NodeId> pop_from(size_t begin) {
    std::vector<NodeId> out(stack_.begin() + static_cast<std::ptrdiff_t>(begin), stack_.end());
    stack_.resize(begin);
    return out;
  }
  std::vector<NodeId> pop_many(size_t count) {
    if (stack_.size() - floor() < count) in_.fail_here("the pickle takes more values than it made");
    return pop_from(stack_.size() - count);
  }
  std::vector<NodeId> pop_to_mark() {
    if (marks_.empty()) in_.fail_here("a container is closed that was not opened");
    const size_t begin = marks_.back();
    marks_.pop_back();
    return pop_from(begin);
  }

  void push_integer(int64_t value) { push(document_.add_number(ValueKind::integer, value)); }
  void push_long(uint64_t size) {
    if (size > longest_integer) in_.fail_here(fmt::format("integer of {} bytes", size));
    const ByteSpan bytes = in_.take(size);
    if (size > 8) {
      push(document_.add_text(ValueKind::big_integer, decimal(bytes)));
      return;
    }
    uint64_t bits = 0;
    for (size_t i = 0; i < bytes.size(); ++i) bits |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    if (size > 0 && size < 8 && (static_cast<uint8_t>(bytes.back()) & 0x80))
      bits |= ~uint64_t{0} << (8 * size);
    push_integer(static_cast<int64_t>(bits));
  }

  void push_string(uint64_t size) {
    const std::string_view text = as_text(in_.take(size));
    if (!is_utf8(text)) in_.fail_here("a string is not UTF-8");
    push(document_.add_text(ValueKind::string, text));
  }
  void push_bytes(uint64_t size) {
    push(document_.add_text(ValueKind::bytes, as_text(in_.take(size))));
  }
  void push_old_string(uint64_t size) {
    const std::string_view text = as_text(in_.take(size));
    push(document_.add_text(is_utf8(text) ? ValueKind::string : ValueKind::bytes, text));
  }

  void push_container(ValueKind kind, std::vector<NodeId> items) {
    push(document_.add_items(kind, std::move(items)));
  }
  NodeId expect_top(ValueKind kind) const {
    const NodeId id = top();
    if (document_.node(id).kind != kind)
      in_.fail_here(fmt::format("elements are added to {} as if it were {}",
                                describe(document_.node(id).kind), describe(kind)));
    return id;
  }
  void extend(ValueKind kind, const std::vector<NodeId>& more) {
    std::vector<NodeId>& items = document_.items(expect_top(kind));
    items.insert(items.end(), more.begin(), more.end());
  }
  void set_items(const std::vector<NodeId>& pairs) {
    if (pairs.size() % 2 != 0) in_.fail_here("a dictionary key has no value");
    for (size_t i = 0; i < pairs.size(); i += 2) {
      const ValueKind kind = document_.node(pairs[i]).kind;
      if (kind == ValueKind::list || kind == ValueKind::dict || kind == ValueKind::set)
        in_.fail_here(fmt::format("{} cannot be a dictionary key", describe(kind)));
    }
    extend(ValueKind::dict, pairs);
  }

  void remember(uint32_t slot) { memo_[slot] = top(); }
  void recall(uint32_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) in_.fail_here(fmt::format("memo entry {} was never written", slot));
    push(found->second);
  }

  ByteReader& in_;
  Document& document_;
  PickleHost& host_;
  std::vector<NodeId> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, NodeId> memo_;  // a map: slots are the file's choice, up to 2^32 - 1
};

}  // namespace

NodeId PickleHost::global(std::string_view module, std::string_view name) {
  fail(document_.where(),
       fmt::format("{} is not something that tensors need; nothing was imported or run. If the "
                   "file pickles a whole model or other objects, save its state_dict() instead",
                   printable(std::string(module) + "." + std::string(name))));
}

NodeId PickleHost::call(NodeId, NodeId) { fail(document_.where(), "a call where none belongs"); }

void PickleHost::set_state(NodeId, NodeId) {
  fail(document_.where(), "object state where none belongs");
}

NodeId PickleHost::persistent(NodeId) {
  fail(document_.where(), "a persistent id where none belongs");
}

NodeId read_pickle(ByteReader& in, Document& document, PickleHost& host) {
  return Machine(in, document, host).run();
}

}  // namespace voxlab
