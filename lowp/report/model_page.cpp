// What a model report looks like: tables, footnotes, JSON, HTML.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lowp/report/model_report.h"
#include "lowp/report/svg.h"

namespace lowp::report {
namespace {

// Footnotes, in this order; those without a column are left out.
enum NoteId : std::size_t {
  kBits,
  kGigabytes,
  kSqnr,
  kPerplexity,
  kKl,
  kTask,
  kDecode,
  kPrefill,
  kBandwidth,
  kMemory,
  kSpeedUp
};

constexpr const char* kPplPattern = "{:#.6g}";
constexpr double kSteady = 0.1;  // change of the original's speed within a report that is no cause for a warning
constexpr double kPlotted = 2;   // recipes whose perplexity is beyond this multiple of the original's are not plotted

// A column of numbers: what it is called, which note explains it, and its value in a row (nullopt: "-").
struct Metric {
  std::string title, pattern;
  NoteId note;
  std::function<std::optional<double>(const ModelRow&)> value;
};

std::vector<Metric> accuracy_metrics(const ModelReport& report) {
  std::vector<Metric> metrics = {{"bits/weight", "{:.3f}", kBits, [](const ModelRow& r) { return r.bits_per_weight; }},
                                 {"checkpoint GB", "{:#.4g}", kGigabytes,
                                  [](const ModelRow& r) { return static_cast<double>(r.file_bytes) / 1e9; }},
                                 {"weight SQNR dB", "{:.2f}", kSqnr, [](const ModelRow& r) { return r.sqnr; }}};
  for (std::size_t i = 0; i < report.methods.size(); ++i) {
    metrics.push_back({fmt::format("ppl {}", name(report.methods[i])), kPplPattern, kPerplexity,
                       [i](const ModelRow& r) { return r.perplexity[i].perplexity; }});
    if (report.methods[i] == eval::Method::rolling)
      metrics.push_back(
          {"word ppl", kPplPattern, kPerplexity, [i](const ModelRow& r) { return r.perplexity[i].word_perplexity; }});
  }
  if (!report.methods.empty()) {
    metrics.push_back({"KL", "{:.5f}", kKl, [](const ModelRow& r) {
                         return r.perplexity[0].kl ? std::optional(r.perplexity[0].kl->mean) : std::nullopt;
                       }});
    metrics.push_back({"same top-1 %", "{:.2f}", kKl, [](const ModelRow& r) {
                         return r.perplexity[0].kl ? std::optional(100 * r.perplexity[0].kl->top1) : std::nullopt;
                       }});
  }
  if (!report.task_path.empty()) {
    metrics.push_back({"acc %", "{:.2f}", kTask, [](const ModelRow& r) { return 100 * r.task->acc; }});
    metrics.push_back({"acc_norm %", "{:.2f}", kTask, [](const ModelRow& r) { return 100 * r.task->acc_norm; }});
  }
  return metrics;
}

std::vector<Metric> speed_metrics(const ModelReport& report) {
  const Speed base = *report.rows.front().speed;
  return {{"decode tokens/s", "{:.1f}", kDecode, [](const ModelRow& r) { return r.speed->decode_rate(); }},
          {"speed-up", "{:.2f}", kSpeedUp,
           [base](const ModelRow& r) { return r.speed->decode_rate() / base.decode_rate(); }},
          {"prefill tokens/s", "{:.1f}", kPrefill, [](const ModelRow& r) { return r.speed->prefill_rate(); }},
          {"speed-up", "{:.2f}", kSpeedUp,
           [base](const ModelRow& r) { return r.speed->prefill_rate() / base.prefill_rate(); }},
          {"bandwidth GB/s", "{:.3f}", kBandwidth, [](const ModelRow& r) { return r.speed->bandwidth() / 1e9; }},
          {"peak memory MB", "{:.1f}", kMemory, [](const ModelRow& r) {
             return r.speed->peak_bytes ? std::optional(static_cast<double>(r.speed->peak_bytes) / 1e6) : std::nullopt;
           }}};
}

struct NumberedNote {
  NoteId id;
  Note note;
};

std::string perplexity_words(const ModelReport& report) {
  const std::vector<eval::PerplexityResult>& results = report.rows.front().perplexity;
  std::string words = fmt::format("exp of the mean negative log-likelihood on {}.", report.text_path);
  for (std::size_t i = 0; i < results.size(); ++i) {
    const char* how = report.methods[i] == eval::Method::disjoint ? "windows scored whole"
                      : report.methods[i] == eval::Method::half
                          ? "windows, second half scored (llama.cpp)"
                          : "every token scored once with as much context as fits (lm-eval)";
    words += fmt::format(" {}: {}, {} tokens a window, {} of {} tokens scored.", name(report.methods[i]), how,
                         results[i].context, results[i].scored, results[i].tokens);
    if (results[i].word_perplexity) words += " word ppl: the same sum divided by words instead of tokens.";
  }
  return words;
}

// Whether the original, timed again at the end, ran as fast as at the beginning.
std::string drift(const ModelReport& report) {
  if (!report.again) return "";
  const double first = report.rows.front().speed->decode_rate(), last = report.again->decode_rate(),
               change = last / first - 1;
  return fmt::format(
      " Timed again at the end, the original decoded {:.1f} tokens/s, {:+.0f} % against the beginning.{}", last,
      100 * change,
      std::abs(change) > kSteady
          ? " WARNING: the machine was busy with other work; the speeds of this report cannot be compared."
          : "");
}

std::vector<NumberedNote> numbered_notes(const ModelReport& report) {
  const ModelRow& original = report.rows.front();
  const Speed& speed = *original.speed;
  std::vector<NumberedNote> all = {
      {kBits,
       {"bits/weight",
        "codes, scales and zero points of the quantized Linears as stored, for each of their weights; head and "
        "embedding stay as they are. First row: all tensors."}},
      {kGigabytes, {"checkpoint GB", "all safetensors files of the checkpoint, 10^9 bytes."}},
      {kSqnr, {"weight SQNR", "20 log10(|w| / |w - q|), mean over the quantized Linears."}}};
  if (!report.methods.empty()) {
    all.push_back({kPerplexity, {"perplexity", perplexity_words(report)}});
    all.push_back(
        {kKl,
         {"KL, same top-1", fmt::format("KL(original || recipe) in nats, mean over the positions scored by the method "
                                        "{}; share of those positions where both would choose the same token.",
                                        name(report.methods.front()))}});
  }
  if (original.task)
    all.push_back({kTask,
                   {"acc, acc_norm",
                    fmt::format("{} questions of {}: the choice with the largest log-likelihood, and with the largest "
                                "log-likelihood a character; +- {:.2f} and {:.2f} % (standard error of the original).",
                                original.task->questions, report.task_path, 100 * original.task->acc_stderr,
                                100 * original.task->acc_norm_stderr)}});
  all.push_back(
      {kDecode,
       {"decode tokens/s", fmt::format("{} greedy steps of one sequence after a prompt of {} tokens, logits included; "
                                       "median of the runs of about two seconds (3 to 9 runs), after a warm-up.",
                                       speed.decode_tokens, speed.prefill_tokens)}});
  all.push_back(
      {kPrefill,
       {"prefill tokens/s", fmt::format("the prompt of {} tokens in one call, logits of its last token; same runs.",
                                        speed.prefill_tokens)}});
  all.push_back({kBandwidth,
                 {"bandwidth",
                  "model bandwidth: weight bytes without the embedding (a tied head counts; of a mixture, all experts) "
                  "times decode tokens/s, 10^9 bytes a second."}});
  all.push_back({kMemory,
                 {"peak memory",
                  "largest resident set (VmHWM) of a process that loads the checkpoint and does these runs, pages of "
                  "the mapped file included; 10^6 bytes."}});
  all.push_back({kSpeedUp, {"speed-up", "over the first row, the model as it was." + drift(report)}});
  return all;
}

std::optional<std::size_t> note_index(const std::vector<NumberedNote>& notes, NoteId id) {
  for (std::size_t i = 0; i < notes.size(); ++i)
    if (notes[i].id == id) return i;
  return std::nullopt;
}

void add_columns(Grid& grid, const std::vector<Metric>& metrics, const ModelReport& report) {
  const auto notes = numbered_notes(report);
  for (const Metric& metric : metrics) grid.columns.push_back({metric.title, note_index(notes, metric.note)});
  std::size_t at = 0;
  for (const ModelRow& row : report.rows) {
    if (!row.refusal.empty()) continue;
    for (const Metric& metric : metrics) grid.rows[at].push_back(number_cell(metric.value(row), metric.pattern));
    ++at;
  }
}

Json or_null(std::optional<double> value) { return value && std::isfinite(*value) ? Json(*value) : Json(nullptr); }

Json row_json(const ModelReport& report, const ModelRow& row) {
  Json json = {{"recipe", row.recipe}, {"weight", row.weight}, {"activation", row.activation}};
  if (!row.refusal.empty()) {
    json["refused"] = row.refusal;
    return json;
  }
  json.update(
      {{"bits_per_weight", row.bits_per_weight}, {"file_bytes", row.file_bytes}, {"sqnr_mean", or_null(row.sqnr)}});
  Json perplexity = Json::object();
  for (std::size_t i = 0; i < row.perplexity.size(); ++i) {
    const eval::PerplexityResult& r = row.perplexity[i];
    perplexity[std::string(name(report.methods[i]))] = {{"context", r.context},
                                                        {"tokens", r.tokens},
                                                        {"scored", r.scored},
                                                        {"nll", r.nll},
                                                        {"nll_stderr", r.nll_stderr},
                                                        {"perplexity", r.perplexity},
                                                        {"word_perplexity", or_null(r.word_perplexity)}};
  }
  json["perplexity"] = perplexity;
  const bool compared = !row.perplexity.empty() && row.perplexity[0].kl;
  json["kl"] = compared ? Json{{"mean", row.perplexity[0].kl->mean},
                               {"stderr", row.perplexity[0].kl->stderr_},
                               {"top1", row.perplexity[0].kl->top1}}
                        : Json(nullptr);
  json["task"] = row.task ? Json{{"questions", row.task->questions},
                                 {"acc", row.task->acc},
                                 {"acc_stderr", row.task->acc_stderr},
                                 {"acc_norm", row.task->acc_norm},
                                 {"acc_norm_stderr", row.task->acc_norm_stderr}}
                          : Json(nullptr);
  const Speed &speed = *row.speed, &base = *report.rows.front().speed;
  Json measured = to_json(speed);
  measured.update({{"decode_tokens_per_second", speed.decode_rate()},
                   {"decode_speedup", speed.decode_rate() / base.decode_rate()},
                   {"prefill_tokens_per_second", speed.prefill_rate()},
                   {"prefill_speedup", speed.prefill_rate() / base.prefill_rate()},
                   {"bandwidth_bytes_per_second", speed.bandwidth()}});
  json["speed"] = measured;
  return json;
}

// Whether a recipe is so far off that it would squash a plot.
bool off_the_plot(const ModelReport& report, const ModelRow& row) {
  return !row.perplexity.empty() &&
         row.perplexity[0].perplexity > kPlotted * report.rows.front().perplexity[0].perplexity;
}

std::string off_the_plot(const ModelReport& report) {
  std::string list;
  for (const ModelRow& row : report.rows)
    if (off_the_plot(report, row))
      list += fmt::format("{}{} ({:.4g})", list.empty() ? "" : ", ", row.recipe, row.perplexity[0].perplexity);
  return list.empty()
             ? ""
             : fmt::format("<p class=\"about\">Not plotted, perplexity beyond {} times the original's: {}.</p>\n",
                           kPlotted, escape(list));
}

// Points of a metric over bits a weight; recipes only, not the original.
ScatterPlot scatter(const ModelReport& report, const std::string& title, Axis y,
                    const std::function<std::optional<double>(const ModelRow&)>& value) {
  ScatterPlot plot{.title = title,
                   .x = {"bits a weight", true},
                   .y = std::move(y),
                   .series = {"weights only", "weights and activations"},
                   .points = {},
                   .reference = {},
                   .reference_label = ""};
  for (const ModelRow& row : report.rows) {
    if (&row == &report.rows.front() || !row.refusal.empty() || off_the_plot(report, row)) continue;
    const auto v = value(row);
    if (v && std::isfinite(*v) && (*v > 0 || !plot.y.logarithmic))
      plot.points.push_back({row.bits_per_weight, *v, row.recipe, row.activation == "bf16" ? 0u : 1u});
  }
  return plot;
}

std::string accuracy_plots(const ModelReport& report) {
  if (report.methods.empty())
    return svg(scatter(report, "Weight SQNR over bits a weight (higher is better)", {"SQNR dB"},
                       [](const ModelRow& r) { return r.sqnr; }));
  const std::string method(name(report.methods.front()));
  const std::string kl = svg(scatter(
      report, "KL divergence from the original over bits a weight (lower is better)", {"KL, nats", true},
      [](const ModelRow& r) { return r.perplexity[0].kl ? std::optional(r.perplexity[0].kl->mean) : std::nullopt; }));
  ScatterPlot perplexity =
      scatter(report, fmt::format("Perplexity ({}) over bits a weight (lower is better)", method), {"perplexity", true},
              [](const ModelRow& r) { return std::optional(r.perplexity[0].perplexity); });
  perplexity.reference = report.rows.front().perplexity[0].perplexity;
  perplexity.reference_label = fmt::format("the original: {:.4f}", *perplexity.reference);
  return off_the_plot(report) + kl + svg(perplexity);
}

std::string speed_bars(const ModelReport& report, const std::string& title, double (Speed::*rate)() const) {
  const double base = (*report.rows.front().speed.*rate)();
  BarChart chart{title, {}, base};
  for (const ModelRow& row : report.rows) {
    if (!row.refusal.empty()) continue;
    const double value = (*row.speed.*rate)();
    chart.bars.push_back({row.recipe, value, fmt::format("{:.1f} ({:.2f}x)", value, value / base)});
  }
  return svg(chart);
}

std::string left_out(const ModelReport& report) {
  std::string text;
  if (report.methods.empty()) text += "Perplexity and KL are left out: no --text was given. ";
  if (report.task_path.empty()) text += "Task accuracy is left out: no --task was given. ";
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

}  // namespace

std::vector<Grid> grids(const ModelReport& report) {
  Grid accuracy{"Accuracy and size", {{"recipe", {}}, {"weight", {}}, {"activation", {}}}, {}},
      speed{"Speed and memory", {{"recipe", {}}}, {}};
  Grid refused{"Recipes that do not fit this model", {{"recipe", {}}, {"reason", {}}}, {}};
  for (const ModelRow& row : report.rows) {
    if (!row.refusal.empty()) {
      refused.rows.push_back({{row.recipe, {}}, {row.refusal, {}}});
      continue;
    }
    accuracy.rows.push_back({{row.recipe, {}}, {row.weight, {}}, {row.activation, {}}});
    speed.rows.push_back({{row.recipe, {}}});
  }
  add_columns(accuracy, accuracy_metrics(report), report);
  add_columns(speed, speed_metrics(report), report);
  std::vector<Grid> all = {accuracy, speed};
  if (!refused.rows.empty()) all.push_back(refused);
  return all;
}

std::vector<Note> notes(const ModelReport& report) {
  std::vector<Note> plain;
  for (const NumberedNote& numbered : numbered_notes(report)) plain.push_back(numbered.note);
  plain.push_back({"compute", fmt::format("residual stream and activation quantizers' input in {}; recipes applied to "
                                          "every Linear but head and routers, MX scales by rceil.",
                                          report.compute)});
  if (const std::string text = left_out(report); !text.empty()) plain.push_back({"left out", text});
  return plain;
}

Json to_json(const ModelReport& report) {
  Json rows = Json::array(), explained = Json::object();
  for (const ModelRow& row : report.rows) rows.push_back(row_json(report, row));
  for (const Note& note : notes(report)) explained[note.term] = note.text;
  const auto path = [](const std::string& p) { return p.empty() ? Json(nullptr) : Json(p); };
  return {{"report", "model"},
          {"model", report.model},
          {"text", path(report.text_path)},
          {"task", path(report.task_path)},
          {"compute", report.compute},
          {"device", "cpu"},
          {"measured_on", report.machine.cpu},
          {"threads", report.machine.threads},
          {"date", report.machine.date},
          {"version", report.machine.version},
          {"original_again", report.again ? Json{{"decode_tokens_per_second", report.again->decode_rate()},
                                                 {"prefill_tokens_per_second", report.again->prefill_rate()}}
                                          : Json(nullptr)},
          {"rows", rows},
          {"notes", explained},
          {"seconds", report.seconds}};
}

std::string html(const ModelReport& report) {
  const std::vector<Grid> tables = grids(report);
  std::string body = html_table(tables[0]) + accuracy_plots(report) + html_table(tables[1]);
  body += fmt::format("<p class=\"about\">{}</p>\n", escape(drift(report)));
  body += speed_bars(report, "Decode, tokens/s (dashed: the original)", &Speed::decode_rate) +
          speed_bars(report, "Prefill, tokens/s (dashed: the original)", &Speed::prefill_rate);
  for (std::size_t i = 2; i < tables.size(); ++i) body += html_table(tables[i]);
  return html_page(fmt::format("lowp report: {}", report.model),
                   fmt::format("{}; compute {}", about(report.machine), report.compute), body, notes(report));
}

}  // namespace lowp::report
