// A main() for fuzz targets where libFuzzer is not at hand: runs the seeds, then mutations of them. Deterministic, so
// that the same --seed fails again; the input that failed is left in fuzz-failure.bin and can be given as a corpus
// file. Or writes the seeds as files, for libFuzzer to begin with.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
// A target may bring its own seeds.
[[gnu::weak]] std::vector<std::string> fuzz_seeds();
// Present under a sanitizer, whose reports end the process without a signal.
extern "C" [[gnu::weak]] void __sanitizer_set_death_callback(void (*callback)());

namespace {

constexpr std::size_t kMaxBytes = 4096;    // mutations do not grow inputs beyond this
constexpr unsigned kSecondsPerInput = 10;  // after which an input counts as a hang
constexpr std::uint64_t kInteresting[] = {
    0,          1,           2,           7,          8,          16,         100,        127,
    128,        255,         256,         1023,       1025,       32767,      32768,      65535,
    65536,      100'000'000, 100'000'001, 2147483647, 2147483648, 4294967295, 4294967296, 1ull << 53,
    1ull << 60, 1ull << 61,  1ull << 62,  ~0ull >> 1, 1ull << 63, ~0ull - 7,  ~0ull - 1,  ~0ull};

// What the failure handlers can see.
const std::uint8_t* current_data = nullptr;
std::size_t current_size = 0;
long long current_run = -1;

void save_current() {
  const int fd = ::open("fuzz-failure.bin", O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd >= 0 && ::write(fd, current_data, current_size) == static_cast<ssize_t>(current_size)) ::close(fd);
  std::fprintf(stderr, "fuzz: run %lld failed; its input of %zu bytes is in fuzz-failure.bin\n", current_run,
               current_size);
}

void on_signal(int signal) {
  if (signal == SIGALRM) std::fprintf(stderr, "fuzz: no end after %u s\n", kSecondsPerInput);
  save_current();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void install_handlers() {
  std::signal(SIGALRM, on_signal);
  std::signal(SIGABRT, on_signal);
  if (__sanitizer_set_death_callback) {
    __sanitizer_set_death_callback(save_current);
  } else {
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(signal, on_signal);
  }
}

// The input is copied to a block of exactly its size: a sanitizer then sees a read of one byte too many.
void run(std::string_view input) {
  const auto bytes = std::make_unique<std::uint8_t[]>(input.size());
  std::copy(input.begin(), input.end(), bytes.get());
  current_data = bytes.get();
  current_size = input.size();
  ::alarm(kSecondsPerInput);
  LLVMFuzzerTestOneInput(bytes.get(), input.size());
  ::alarm(0);
  current_data = nullptr;
  current_size = 0;
}

class Mutator {
 public:
  Mutator(std::uint64_t seed, const std::vector<std::string>& corpus) : random_(seed), corpus_(corpus) {}

  std::string next() {
    std::string input = corpus_[below(corpus_.size())];
    for (std::size_t steps = 1 + below(8); steps > 0; --steps) mutate(input);
    return input;
  }

 private:
  // Modulo, not std::uniform_int_distribution: that one differs between standard libraries.
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(random_() % bound); }
  std::size_t position(const std::string& text) { return below(text.size() + 1); }
  std::uint64_t interesting() { return kInteresting[below(std::size(kInteresting))] + below(3) - 1; }
  std::size_t chunk(const std::string& text, std::size_t begin) {
    return below(std::min<std::size_t>(text.size() - begin, 64) + 1);
  }

  void mutate(std::string& text) {
    switch (below(9)) {
      case 0:
        return flip_bit(text);
      case 1:
        return insert_bytes(text);
      case 2:
        return erase_chunk(text);
      case 3:
        return copy_chunk(text);
      case 4:
        return splice(text);
      case 5:
        return write_integer(text);
      case 6:
        return write_decimal(text);
      case 7:
        return overwrite_byte(text);
      case 8:
        return below(4) == 0 ? text.resize(position(text)) : void();
    }
  }

  void insert(std::string& text, std::size_t at, std::string_view part) {
    if (text.size() + part.size() <= kMaxBytes) text.insert(at, part);
  }

  void flip_bit(std::string& text) {
    if (!text.empty()) text[below(text.size())] ^= static_cast<char>(1 << below(8));
  }
  void overwrite_byte(std::string& text) {
    if (!text.empty()) text[below(text.size())] = static_cast<char>(random_());
  }
  void insert_bytes(std::string& text) {
    // Once in a while a run of one byte: depth of nesting, length of a name.
    const char byte = below(2) ? static_cast<char>(random_()) : "[]{}\",:0\\ "[below(10)];
    const std::size_t count = below(8) ? 1 : below(1500);
    insert(text, position(text), std::string(count, byte));
  }
  void erase_chunk(std::string& text) {
    const std::size_t begin = position(text);
    text.erase(begin, below(2) ? 1 : chunk(text, begin));
  }
  void copy_chunk(std::string& text) {
    const std::size_t begin = position(text);
    const std::string copy = text.substr(begin, chunk(text, begin));
    insert(text, position(text), copy);
  }
  void splice(std::string& text) {
    const std::string& other = corpus_[below(corpus_.size())];
    text.resize(position(text));
    text.append(other, position(other)).resize(std::min(text.size(), kMaxBytes));
  }
  void write_integer(std::string& text) {
    const std::uint64_t value = interesting();
    const std::size_t width = std::size_t{1} << below(4);
    if (text.size() < width) return;
    // Mostly anywhere, often at the start, where binary formats keep their lengths.
    std::memcpy(text.data() + (below(3) ? below(text.size() - width + 1) : 0), &value, width);
  }
  // Replaces a number in the text, as far as there is one after a random place.
  void write_decimal(std::string& text) {
    constexpr const char* kDigits = "0123456789";
    const std::size_t begin = text.find_first_of(kDigits, position(text));
    if (begin == text.npos) return;
    const std::size_t end = std::min(text.find_first_not_of(kDigits, begin), text.size());
    text.replace(begin, end - begin, std::to_string(interesting()));
  }

  std::mt19937_64 random_;
  const std::vector<std::string>& corpus_;
};

struct Options {
  long long runs = 20'000;
  std::uint64_t seed = 1;
  std::string seeds;  // the folder to write the seeds to, in place of running
  std::vector<std::string> files;
};

template <typename T>
void parse_number(const char* text, T& value) {
  const char* end = text + std::strlen(text);
  if (std::from_chars(text, end, value).ptr == end && end != text) return;
  std::fprintf(stderr, "fuzz: expected a number, found '%s'\n", text);
  std::exit(2);
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--runs" && i + 1 < argc) {
      parse_number(argv[++i], options.runs);
    } else if (word == "--seed" && i + 1 < argc) {
      parse_number(argv[++i], options.seed);
    } else if (word == "--write-seeds" && i + 1 < argc) {
      options.seeds = argv[++i];
    } else if (word.starts_with("--")) {
      std::fprintf(stderr, "usage: %s [--runs N] [--seed S] [--write-seeds FOLDER] [corpus files...]\n", argv[0]);
      std::exit(2);
    } else {
      options.files.emplace_back(word);
    }
  }
  return options;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "fuzz: cannot open %s\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  std::vector<std::string> corpus{""};
  if (fuzz_seeds) corpus = fuzz_seeds();
  for (const std::string& path : options.files) corpus.push_back(read_file(path));

  if (!options.seeds.empty()) {
    for (std::size_t i = 0; i < corpus.size(); ++i)
      std::ofstream(options.seeds + "/seed-" + std::to_string(i), std::ios::binary) << corpus[i];
    return 0;
  }

  install_handlers();
  for (const std::string& input : corpus) run(input);
  Mutator mutator(options.seed, corpus);
  for (current_run = 0; current_run < options.runs; ++current_run) run(mutator.next());
  std::printf("fuzz: %zu inputs and %lld mutations, seed %llu: no failure\n", corpus.size(), options.runs,
              static_cast<unsigned long long>(options.seed));
}
