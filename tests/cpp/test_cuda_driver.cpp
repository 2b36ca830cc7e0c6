// The arena with the driver that CTest chooses:
//   test_cuda_driver error TEXT...    its constructor throws a message with each TEXT
//   test_cuda_driver plain TEXT...    it has plain memory, for a reason with each TEXT
#include <cstring>
#include <string>

#include "arena/arena.hpp"
#include "check.hpp"

using namespace adacache;
using namespace adacache::arena;

namespace {

std::string use_plain_memory() {
  Arena arena = Arena::on_cuda(0, 8 << 20);
  const auto lease = arena.lease();
  const Slot slot = lease->grow({1000}).at(0);
  std::memset(reinterpret_cast<void*>(slot.address), 1, slot.bytes);
  lease->mark(0);
  CHECK(arena.stats().mapped > 0 && !arena.stats().is_virtual);
  return arena.stats().why_not_virtual;
}

}  // namespace

int main(int count, char** arguments) {
  CHECK(count > 2);
  const bool error = count > 1 && std::string(arguments[1]) == "error";
  const std::string said =
      error ? message_of<Error>([] { Arena::on_cuda(0, 8 << 20); }) : use_plain_memory();
  for (int i = 2; i < count; ++i)
    if (!has(said, arguments[i])) {
      std::printf("expected: %s\nsaid: %s\n", arguments[i], said.c_str());
      CHECK(false);
    }
  return failures() > 0;
}
