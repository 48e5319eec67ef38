// Server and client against each other, and against raw sockets that misbehave.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <thread>

#include "qanat/net/http_client.h"
#include "qanat/net/http_server.h"
#include "qanat/net/socket.h"

namespace qanat::net {
namespace {

using namespace std::chrono_literals;

// A one-way switch that a test can wait for.
class Gate {
 public:
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool wait(std::chrono::milliseconds limit = 10s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

class ServerClientTest : public testing::Test {
 protected:
  // Stops the server when it goes out of scope: a handler may still use what stands before it.
  class [[nodiscard]] Serving {
   public:
    explicit Serving(ServerClientTest* test) : test_(test) {}
    Serving(const Serving&) = delete;
    Serving& operator=(const Serving&) = delete;
    ~Serving() {
      if (test_->server_ != nullptr) test_->server_->stop(5s);
    }

   private:
    ServerClientTest* test_;
  };

  Serving start(Handler handler, ServerOptions options = {}) {
    server_ = *HttpServer::create(options);
    auto id = server_->listen_tcp("127.0.0.1", 0, std::move(handler));
    EXPECT_TRUE(id.ok()) << id.status().to_string();
    listener_ = *id;
    port_ = server_->port_of(listener_);
    EXPECT_NE(port_, 0);
    return Serving(this);
  }
  ClientRequest request(const std::string& target, Method method = Method::kGet) {
    ClientRequest out;
    out.method = method;
    out.url = *Url::parse("http://127.0.0.1:" + std::to_string(port_) + target);
    return out;
  }
  std::string get(const std::string& target) {
    auto answer = client_.send(request(target));
    if (!answer.ok()) return "error: " + answer.status().to_string();
    auto body = (*answer)->read_all(1 << 20);
    return body.ok() ? *body : "error: " + body.status().to_string();
  }
  FileDescriptor connect() {
    return *connect_tcp(*IpAddress::parse("127.0.0.1"), port_,
                        std::chrono::steady_clock::now() + 5s, nullptr);
  }
  // Sends raw bytes and reads to the end of the connection.
  std::string exchange(std::string_view bytes) {
    FileDescriptor fd = connect();
    auto stream = plain_stream(fd.release());
    auto deadline = std::chrono::steady_clock::now() + 5s;
    (void)stream->write(bytes, deadline, nullptr, nullptr);
    std::string out;
    char buffer[4096];
    while (true) {
      auto got = stream->read(buffer, sizeof buffer, deadline, nullptr);
      if (!got.ok()) return out + "<" + got.status().message() + ">";
      if (*got == 0) return out;
      out.append(buffer, *got);
    }
  }

  HttpClient client_;
  std::unique_ptr<HttpServer> server_;
  uint64_t listener_ = 0;
  uint16_t port_ = 0;
};

void echo(Request& request, Response& response) {
  auto body = request.read_all(1 << 20);
  if (!body.ok()) {
    (void)response.send(http_status(body.code()), body.status().message(), "text/plain");
    return;
  }
  response.headers().set("X-Target", request.head().target);
  (void)response.send(200, std::string(method_name(request.head().method)) + " " + *body,
                      "text/plain");
}

TEST_F(ServerClientTest, EchoAndKeepAlive) {
  auto serving = start(echo);
  for (int i = 0; i < 20; ++i) {
    ClientRequest post = request("/x?i=" + std::to_string(i), Method::kPost);
    post.body = std::string(static_cast<size_t>(i * 1000), 'b');
    auto answer = client_.send(post);
    ASSERT_TRUE(answer.ok()) << answer.status().to_string();
    EXPECT_EQ((*answer)->status(), 200);
    EXPECT_EQ((*answer)->headers().get("x-target"), "/x?i=" + std::to_string(i));
    const std::string timing((*answer)->headers().get("server-timing"));
    double milliseconds = -1;
    EXPECT_EQ(std::sscanf(timing.c_str(), "handler;dur=%lf", &milliseconds), 1) << timing;
    EXPECT_GE(milliseconds, 0);
    EXPECT_LT(milliseconds, 60'000);
    EXPECT_EQ(*(*answer)->read_all(1 << 20), "POST " + post.body);
  }
  EXPECT_EQ(server_->counters().connections, 1U) << "the connection was not kept";
  EXPECT_EQ(server_->counters().requests, 20U);
}

TEST_F(ServerClientTest, HeadAndNoContent) {
  auto serving = start([](Request& request, Response& response) {
    (void)response.send(request.head().path == "/none" ? 204 : 200, "body", "text/plain");
  });
  auto head = client_.send(request("/", Method::kHead));
  ASSERT_TRUE(head.ok());
  EXPECT_EQ((*head)->content_length(), 4U);
  EXPECT_EQ(*(*head)->read_all(10), "");
  auto none = client_.send(request("/none"));
  ASSERT_TRUE(none.ok());
  EXPECT_EQ((*none)->status(), 204);
  EXPECT_EQ(get("/"), "body");
  EXPECT_EQ(server_->counters().connections, 1U);
}

TEST_F(ServerClientTest, UnixSocketWithLongPath) {
  auto serving = start(echo);
  std::string folder = testing::TempDir() + "/" + std::string(120, 'd');
  std::filesystem::create_directories(folder);
  std::string path = folder + "/worker.sock";
  for (int round = 0; round < 2; ++round) {
    auto id = server_->listen_unix(path, 0600, echo, /*descriptors=*/false);
    ASSERT_TRUE(id.ok()) << id.status().to_string();
    ClientRequest post = request("/u", Method::kPut);
    post.unix_socket = path;
    post.body = "hello";
    auto answer = client_.send(post);
    ASSERT_TRUE(answer.ok()) << answer.status().to_string();
    EXPECT_EQ(*(*answer)->read_all(100), "PUT hello");
    server_->remove_listener(*id, true);
    EXPECT_FALSE(std::filesystem::exists(path));
    auto refused = client_.send(post);
    EXPECT_EQ(refused.code(), Code::kUnavailable);
  }
  std::filesystem::remove_all(folder);
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// Answers with what the descriptor reads, or "none".
void read_descriptor(Request& request, Response& response) {
  char buffer[64];
  const ssize_t got =
      request.descriptor() < 0 ? -1 : pread(request.descriptor(), buffer, sizeof buffer, 0);
  (void)request.read_all(100);
  (void)response.send(200, got < 0 ? "none" : std::string_view(buffer, static_cast<size_t>(got)));
}

TEST_F(ServerClientTest, ADescriptorComesWithItsRequestOnly) {
  auto serving = start(read_descriptor);
  const std::string path = testing::TempDir() + "/passing.sock";
  ASSERT_TRUE(server_->listen_unix(path, 0600, read_descriptor, /*descriptors=*/true).ok());
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  std::fputs("passed", file);
  std::fflush(file);
  auto ask = [&](int descriptor) {
    ClientRequest post = request("/", Method::kPost);
    post.unix_socket = path;
    post.descriptor = descriptor;
    post.body = "body";
    auto answer = client_.send(post);
    if (!answer.ok()) return answer.status().to_string();
    return *(*answer)->read_all(100);
  };
  EXPECT_EQ(ask(-1), "none");
  const size_t before = open_descriptors();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask(fileno(file)), "passed");
    EXPECT_EQ(ask(-1), "none");
  }
  EXPECT_EQ(server_->counters().connections, 1U);
  EXPECT_EQ(open_descriptors(), before);

  const std::string other = testing::TempDir() + "/not-passing.sock";
  ASSERT_TRUE(server_->listen_unix(other, 0600, read_descriptor, /*descriptors=*/false).ok());
  ClientRequest post = request("/", Method::kPost);
  post.unix_socket = other;
  post.descriptor = fileno(file);
  auto dropped = client_.send(post);
  ASSERT_TRUE(dropped.ok());
  EXPECT_EQ(*(*dropped)->read_all(100), "none");

  ClientRequest wrong = request("/", Method::kPost);
  wrong.descriptor = fileno(file);
  EXPECT_EQ(client_.send(wrong).code(), Code::kInvalidArgument) << "not through TCP";
  std::fclose(file);
}

// More than one, one in a second piece of the header, one with a body: none is kept open.
TEST_F(ServerClientTest, UnexpectedDescriptorsAreClosed) {
  auto serving = start(read_descriptor);
  const std::string path = testing::TempDir() + "/passing-more.sock";
  ASSERT_TRUE(server_->listen_unix(path, 0600, read_descriptor, /*descriptors=*/true).ok());
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  std::fputs("passed", file);
  std::fflush(file);
  const size_t before = open_descriptors();
  {
    FileDescriptor fd = *connect_unix(path, std::chrono::steady_clock::now() + 5s, nullptr);
    auto send = [&](std::string_view bytes) {
      EXPECT_EQ(send_with_descriptor(fd.get(), bytes, fileno(file)),
                static_cast<ssize_t>(bytes.size()));
    };
    send("POST / HTTP/1.1\r\nHost: x\r\n");
    send("Content-Length: 4\r\n\r\n");
    send("body");
    char answer[1024];
    Result<short> ready =
        wait_for(fd.get(), POLLIN, std::chrono::steady_clock::now() + 5s, nullptr);
    ASSERT_TRUE(ready.ok());
    const ssize_t got = recv(fd.get(), answer, sizeof answer, 0);
    ASSERT_GT(got, 0);
    EXPECT_NE(std::string_view(answer, static_cast<size_t>(got)).find("passed"),
              std::string_view::npos);
  }
  for (int i = 0; i < 1000 && open_descriptors() > before; ++i) {
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_EQ(open_descriptors(), before);
  std::fclose(file);
}

// 256 MiB up, chunked, and down, with a length; nothing may be gathered on the way.
TEST_F(ServerClientTest, BigBodiesInBoundedMemory) {
  constexpr uint64_t kTotal = 256ULL << 20;
  std::atomic<uint64_t> received{0};
  auto serving = start([&](Request& request, Response& response) {
    std::string buffer(64 << 10, '\0');
    if (request.head().method == Method::kPut) {
      while (true) {
        auto got = request.read(buffer.data(), buffer.size());
        if (!got.ok() || *got == 0) break;
        received += *got;
      }
      (void)response.send(200, "", {});
      return;
    }
    ASSERT_TRUE(response.start(200, kTotal).ok());
    for (uint64_t sent = 0; sent < kTotal; sent += buffer.size()) {
      if (!response.write(buffer).ok()) return;
    }
    EXPECT_TRUE(response.finish().ok());
  });
  rusage before{};
  getrusage(RUSAGE_SELF, &before);
  ClientRequest put = request("/", Method::kPut);
  uint64_t left = kTotal;
  put.source = [&left](char*, size_t size) -> Result<size_t> {
    size_t take = std::min<uint64_t>(size, left);
    left -= take;
    return take;
  };
  auto answer = client_.send(put);
  ASSERT_TRUE(answer.ok()) << answer.status().to_string();
  EXPECT_EQ(received.load(), kTotal);
  auto down = client_.send(request("/"));
  ASSERT_TRUE(down.ok());
  std::string buffer(64 << 10, '\0');
  uint64_t total = 0;
  while (true) {
    auto got = (*down)->read(buffer.data(), buffer.size());
    ASSERT_TRUE(got.ok()) << got.status().to_string();
    if (*got == 0) break;
    total += *got;
  }
  EXPECT_EQ(total, kTotal);
  rusage after{};
  getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__
  EXPECT_LT(after.ru_maxrss - before.ru_maxrss, 64L << 10) << "KiB";
#endif
}

TEST_F(ServerClientTest, ExpectContinueRefusesBeforeTheBody) {
  auto serving =
      start([](Request&, Response& response) { (void)response.send(403, "no", "text/plain"); });
  ClientRequest put = request("/", Method::kPut);
  bool asked = false;
  put.expect_continue = true;
  put.source_length = 1 << 20;
  put.source = [&asked](char*, size_t size) -> Result<size_t> {
    asked = true;
    return size;
  };
  auto answer = client_.send(put);
  ASSERT_TRUE(answer.ok()) << answer.status().to_string();
  EXPECT_EQ((*answer)->status(), 403);
  EXPECT_FALSE(asked);
}

TEST_F(ServerClientTest, ExpectContinueIsAnswered) {
  auto serving = start(echo);
  ClientRequest put = request("/", Method::kPut);
  put.expect_continue = true;
  put.body = "data";
  auto begin = std::chrono::steady_clock::now();
  auto answer = client_.send(put);
  ASSERT_TRUE(answer.ok()) << answer.status().to_string();
  EXPECT_EQ(*(*answer)->read_all(100), "PUT data");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 900ms) << "it waited in vain";
}

TEST_F(ServerClientTest, RefusalWhileTheBodyIsSent) {
  auto serving = start(
      [](Request&, Response& response) { (void)response.send(413, "too much", "text/plain"); });
  ClientRequest put = request("/", Method::kPut);
  put.source = [](char*, size_t size) -> Result<size_t> { return size; };  // without end
  auto answer = client_.send(put);
  ASSERT_TRUE(answer.ok()) << answer.status().to_string();
  EXPECT_EQ((*answer)->status(), 413);
}

TEST_F(ServerClientTest, TruncatedRequestBody) {
  Gate seen;
  Status status;
  auto serving = start([&](Request& request, Response& response) {
    status = request.read_all(1 << 20).status();
    (void)response.send(400, "", {});
    seen.open();
  });
  {
    FileDescriptor fd = connect();
    send_some(fd.get(), "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc");
  }
  ASSERT_TRUE(seen.wait());
  EXPECT_EQ(status.code(), Code::kCancelled) << status.to_string();
}

TEST_F(ServerClientTest, TruncatedAnswerIsAnError) {
  auto serving = start([](Request& request, Response& response) {
    bool sized = request.head().path == "/sized";
    (void)response.start(200, sized ? std::optional<uint64_t>(100) : std::nullopt);
    (void)response.write("part");
  });
  for (const char* target : {"/sized", "/chunked"}) {
    auto answer = client_.send(request(target));
    if (!answer.ok()) {
      EXPECT_EQ(answer.code(), Code::kUnavailable);
      continue;
    }
    EXPECT_EQ((*answer)->read_all(1000).code(), Code::kUnavailable) << target;
  }
}

TEST_F(ServerClientTest, HandlerThatAnswersNothingOrThrows) {
  auto serving = start([](Request& request, Response&) {
    if (request.head().path == "/throw") throw std::runtime_error("x");
  });
  for (const char* target : {"/", "/throw"}) {
    auto answer = client_.send(request(target));
    ASSERT_TRUE(answer.ok());
    EXPECT_EQ((*answer)->status(), 500);
  }
}

TEST_F(ServerClientTest, MalformedRequests) {
  auto serving = start(echo);
  auto refused = [&](std::string_view bytes, const char* status) {
    std::string answer = exchange(bytes);
    EXPECT_TRUE(answer.starts_with(std::string("HTTP/1.1 ") + status)) << bytes << "\n" << answer;
  };
  refused("GET\r\n\r\n", "400");
  refused("\x16\x03\x01\x02", "400");
  refused("GET / HTTP/1.1\r\n\r\n", "400");  // no Host
  refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400");
  refused("GET / HTTP/9.1\r\nHost: a\r\n\r\n", "400");
  refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "400");
  refused("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400");
  refused("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "400");
  refused("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "400");
  refused(
      "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: "
      "chunked\r\n\r\n0\r\n\r\n",
      "400");
  refused("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400");
  refused("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(70000, 'x') + "\r\n\r\n", "431");
  // The body is malformed: the handler is told, and answers.
  refused("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", "400");
  EXPECT_EQ(get("/"), "GET ");
}

TEST_F(ServerClientTest, PipelinedRequestsAreAnsweredInOrder) {
  auto serving = start(echo);
  std::string bytes = "\r\n";
  for (int i = 0; i < 50; ++i) {
    bytes += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n" +
             (i == 49 ? "Connection: close\r\n" : "") + "\r\na" + std::to_string(10 + i);
  }
  std::string answers = exchange(bytes);
  size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = answers.find("POST a" + std::to_string(10 + i), at);
    ASSERT_NE(at, std::string::npos) << i;
  }
}

TEST_F(ServerClientTest, SlowHeaderTimesOut) {
  ServerOptions options;
  options.header_timeout = 100ms;
  auto serving = start(echo, options);
  EXPECT_TRUE(exchange("GET / HT").starts_with("HTTP/1.1 408"));
}

TEST_F(ServerClientTest, SlowReaderHoldsNobodyUp) {
  Gate failed;
  ServerOptions options;
  options.write_timeout = 200ms;
  auto serving = start(
      [&](Request& request, Response& response) {
        if (request.head().path == "/small") {
          (void)response.send(200, "ok", {});
          return;
        }
        std::string piece(1 << 20, 'x');
        (void)response.start(200, std::nullopt);
        Status status;
        while (status.ok()) status = response.write(piece);
        EXPECT_EQ(status.code(), Code::kCancelled);
        failed.open();
      },
      options);
  FileDescriptor fd = connect();
  send_some(fd.get(), "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(get("/small"), "ok");
  EXPECT_TRUE(failed.wait());
}

TEST_F(ServerClientTest, DeferredAnswers) {
  std::mutex mutex;
  std::vector<std::shared_ptr<PendingResponse>> waiting;
  ServerOptions options;
  options.max_handler_threads = 2;
  auto serving = start(
      [&](Request&, Response& response) {
        auto pending = response.defer({.timeout = 30s});
        std::lock_guard lock(mutex);
        waiting.push_back(std::move(pending));
      },
      options);
  std::vector<std::thread> clients;
  std::atomic<int> good{0};
  for (int i = 0; i < 30; ++i) {
    clients.emplace_back([&] {
      HttpClient client;
      auto answer = client.send(request("/lease"));
      if (answer.ok() && (*answer)->status() == 201 && *(*answer)->read_all(10) == "job") ++good;
    });
  }
  EXPECT_TRUE(eventually([&] { return server_->counters().pending == 30; }));
  {
    std::lock_guard lock(mutex);
    for (auto& pending : waiting) EXPECT_TRUE(pending->complete(201, {}, "job"));
    EXPECT_FALSE(waiting[0]->complete(201, {}, "again"));
  }
  for (auto& thread : clients) thread.join();
  EXPECT_EQ(good.load(), 30);
}

TEST_F(ServerClientTest, DeferredTimeoutAndDroppedHandle) {
  std::shared_ptr<PendingResponse> kept;
  Gate told;
  auto serving = start([&](Request& request, Response& response) {
    if (request.head().path == "/dropped") {
      response.defer({});
      return;
    }
    kept = response.defer({.timeout = 50ms, .timeout_status = 204});
    kept->on_cancelled([&] { told.open(); });
  });
  auto answer = client_.send(request("/"));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ((*answer)->status(), 204);
  EXPECT_TRUE(told.wait());
  EXPECT_TRUE(kept->cancelled());
  EXPECT_FALSE(kept->complete(200, {}, ""));
  EXPECT_EQ((*client_.send(request("/dropped")))->status(), 500);
  EXPECT_EQ(server_->counters().connections, 1U);
}

TEST_F(ServerClientTest, ClientLeavesDuringDeferredAnswer) {
  std::shared_ptr<PendingResponse> pending;
  Gate deferred;
  Gate left;
  auto serving = start([&](Request&, Response& response) {
    pending = response.defer({.timeout = 60s});
    pending->on_cancelled([&] { left.open(); });
    deferred.open();
  });
  {
    FileDescriptor fd = connect();
    send_some(fd.get(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    ASSERT_TRUE(deferred.wait());
  }
  EXPECT_TRUE(left.wait());
  EXPECT_FALSE(pending->complete(200, {}, "x"));
  EXPECT_TRUE(eventually([&] { return server_->counters().open_connections == 0; }));
}

TEST_F(ServerClientTest, ManyEventStreamsFewThreads) {
  constexpr int kStreams = 200;
  std::mutex mutex;
  std::vector<std::shared_ptr<EventStream>> streams;
  std::atomic<int> closed{0};
  ServerOptions options;
  options.max_handler_threads = 2;
  auto serving = start(
      [&](Request&, Response& response) {
        auto stream = response.stream({});
        stream->on_closed([&] { ++closed; });
        std::lock_guard lock(mutex);
        streams.push_back(std::move(stream));
      },
      options);
  std::vector<std::unique_ptr<ClientResponse>> answers;
  ClientOptions client_options;
  HttpClient client(client_options);
  for (int i = 0; i < kStreams; ++i) {
    auto answer = client.send(request("/events"));
    ASSERT_TRUE(answer.ok()) << answer.status().to_string();
    EXPECT_EQ((*answer)->headers().get("content-type"), "text/event-stream");
    answers.push_back(*std::move(answer));
  }
  EXPECT_EQ(server_->counters().streams, static_cast<uint64_t>(kStreams));
  for (auto& stream : streams) {
    EXPECT_TRUE(stream->send({"commit", "line 1\nline 2", "7"}).ok());
    EXPECT_TRUE(stream->send({"", "plain", ""}).ok());
    stream->close();
    EXPECT_EQ(stream->send({"late", "", ""}).code(), Code::kCancelled);
  }
  for (auto& answer : answers) {
    EventReader reader(*answer);
    auto first = reader.next();
    ASSERT_TRUE(first.ok() && first->has_value()) << first.status().to_string();
    EXPECT_EQ((*first)->name, "commit");
    EXPECT_EQ((*first)->data, "line 1\nline 2");
    EXPECT_EQ((*first)->id, "7");
    auto second = reader.next();
    ASSERT_TRUE(second.ok() && second->has_value());
    EXPECT_EQ((*second)->name, "message");
    EXPECT_EQ((*second)->data, "plain");
    auto end = reader.next();
    ASSERT_TRUE(end.ok()) << end.status().to_string();
    EXPECT_FALSE(end->has_value());
  }
  EXPECT_TRUE(eventually([&] { return closed.load() == kStreams; }));
}

TEST_F(ServerClientTest, SlowEventConsumerIsDropped) {
  std::shared_ptr<EventStream> stream;
  Gate begun;
  Gate closed;
  auto serving = start([&](Request&, Response& response) {
    StreamOptions options;
    options.max_queued_bytes = 100'000;
    stream = response.stream(options);
    stream->on_closed([&] { closed.open(); });
    begun.open();
  });
  auto answer = client_.send(request("/"));
  ASSERT_TRUE(answer.ok());
  ASSERT_TRUE(begun.wait());
  Status status;
  int sent = 0;
  for (; status.ok() && sent < 100'000; ++sent)
    status = stream->send({"x", std::string(5000, 'd'), ""});
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_TRUE(stream->closed());
  // The consumer, when it reads at last, finds whole events and then the reason.
  EventReader reader(**answer);
  std::string last;
  while (true) {
    auto event = reader.next();
    ASSERT_TRUE(event.ok()) << event.status().to_string();
    if (!event->has_value()) break;
    last = (*event)->name;
    if (last == "x") {
      EXPECT_EQ((*event)->data.size(), 5000U);
    }
  }
  EXPECT_EQ(last, "error");
  EXPECT_TRUE(closed.wait());
}

TEST_F(ServerClientTest, EventConsumerLeaves) {
  std::shared_ptr<EventStream> stream;
  Gate begun;
  Gate closed;
  auto serving = start([&](Request&, Response& response) {
    stream = response.stream({});
    stream->on_closed([&] { closed.open(); });
    begun.open();
  });
  {
    auto answer = client_.send(request("/"));
    ASSERT_TRUE(answer.ok());
    ASSERT_TRUE(begun.wait());
  }
  EXPECT_TRUE(closed.wait());
  EXPECT_EQ(stream->send({"x", "", ""}).code(), Code::kCancelled);
}

TEST_F(ServerClientTest, HeartbeatsAreNotEvents) {
  std::shared_ptr<EventStream> stream;
  ServerOptions options;
  options.heartbeat = 20ms;
  auto serving =
      start([&](Request&, Response& response) { stream = response.stream({}); }, options);
  ClientRequest events = request("/");
  events.idle_timeout = 150ms;  // more than the heartbeat
  auto answer = client_.send(events);
  ASSERT_TRUE(answer.ok());
  std::string seen;
  char buffer[100];
  while (seen.find(":\n\n:\n\n") == std::string::npos) {
    auto got = (*answer)->read(buffer, sizeof buffer);
    ASSERT_TRUE(got.ok()) << got.status().to_string();
    seen.append(buffer, *got);
  }
  stream->close();
  EventReader reader(**answer);
  EXPECT_FALSE(reader.next()->has_value());
}

TEST_F(ServerClientTest, DeadlinesAndCancelling) {
  Gate release;
  auto serving = start([&](Request&, Response& response) {
    release.wait();
    (void)response.send(200, "", {});
  });
  ClientRequest slow = request("/");
  slow.total_timeout = 100ms;
  EXPECT_EQ(client_.send(slow).code(), Code::kDeadlineExceeded);
  slow.total_timeout.reset();
  slow.idle_timeout = 100ms;
  EXPECT_EQ(client_.send(slow).code(), Code::kDeadlineExceeded);
  slow.idle_timeout.reset();
  slow.cancel = std::make_shared<CancelSignal>();
  std::thread other([&] {
    eventually([&] { return server_->counters().requests == 3; });
    slow.cancel->cancel();
  });
  EXPECT_EQ(client_.send(slow).code(), Code::kCancelled);
  other.join();
  release.open();
}

TEST_F(ServerClientTest, StaleConnectionIsReplaced) {
  ServerOptions options;
  options.keep_alive_timeout = 30ms;
  auto serving = start(echo, options);
  EXPECT_EQ(get("/"), "GET ");
  EXPECT_TRUE(eventually([&] { return server_->counters().open_connections == 0; }));
  EXPECT_EQ(get("/"), "GET ");
}

TEST_F(ServerClientTest, Redirects) {
  auto serving = start([&](Request& request, Response& response) {
    std::string path = request.head().path;
    if (path == "/a") {
      response.headers().set("Location", "/b");
      (void)response.send(302, "moved", {});
    } else if (path == "/loop") {
      response.headers().set("Location", "/loop");
      (void)response.send(307, "", {});
    } else if (path == "/unix") {
      response.headers().set("Location", "unix:/etc/passwd");
      (void)response.send(302, "", {});
    } else if (path == "/elsewhere") {
      response.headers().set("Location", "http://localhost:" + std::to_string(port_) + "/auth");
      (void)response.send(302, "", {});
    } else {
      (void)response.send(200, path + std::string(request.head().headers.get("authorization")), {});
    }
  });
  ClientRequest r = request("/a");
  EXPECT_EQ((*client_.send(r))->status(), 302) << "followed without being asked";
  r.max_redirects = 3;
  auto answer = client_.send(r);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(*(*answer)->read_all(100), "/b");
  EXPECT_EQ((*answer)->url().path, "/b");
  r.url.path = "/loop";
  EXPECT_EQ(client_.send(r).code(), Code::kFailedPrecondition);
  r.url.path = "/unix";
  EXPECT_EQ(client_.send(r).code(), Code::kPermissionDenied);
  r.headers.set("Authorization", "secret");
  r.url.path = "/a";
  EXPECT_EQ(*(*client_.send(r))->read_all(100), "/bsecret");
  r.url.path = "/elsewhere";
  EXPECT_EQ(*(*client_.send(r))->read_all(100), "/auth") << "the token went to another host";
}

TEST_F(ServerClientTest, PrivateAddressesAreRefusedOnEveryHop) {
  auto serving = start([&](Request&, Response& response) {
    response.headers().set("Location", "http://inner.test:" + std::to_string(port_) + "/secret");
    (void)response.send(302, "", {});
  });
  ClientOptions options;
  options.address_policy = public_only();
  options.resolver = [](const std::string&, Milliseconds) -> Result<std::vector<IpAddress>> {
    return std::vector<IpAddress>{*IpAddress::parse("127.0.0.1")};
  };
  HttpClient strict(options);
  EXPECT_EQ(strict.send(request("/")).code(), Code::kPermissionDenied);
  ClientRequest named = request("/");
  named.url.host = "harmless.example";
  EXPECT_EQ(strict.send(named).code(), Code::kPermissionDenied);
  // The first hop is allowed here, the second is not.
  int asked = 0;
  options.address_policy = [&asked](const IpAddress&) -> Status {
    return ++asked == 1 ? ok_status() : permission_denied("private");
  };
  HttpClient second(options);
  named.max_redirects = 3;
  EXPECT_EQ(second.send(named).code(), Code::kPermissionDenied);
  EXPECT_EQ(asked, 2);
}

TEST_F(ServerClientTest, FullQueueIsUnavailable) {
  Gate release;
  ServerOptions options;
  options.max_handler_threads = 1;
  options.max_queued_requests = 1;
  auto serving = start(
      [&](Request&, Response& response) {
        release.wait();
        (void)response.send(200, "", {});
      },
      options);
  std::vector<FileDescriptor> waiting;
  for (int i = 0; i < 6; ++i) {
    waiting.push_back(connect());
    send_some(waiting.back().get(), "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  }
  EXPECT_TRUE(eventually([&] { return server_->counters().refused >= 4; }));
  int told = 0;
  for (FileDescriptor& fd : waiting) {
    char answer[12] = {};
    told += recv(fd.get(), answer, sizeof answer, MSG_DONTWAIT) == 12 &&
            std::string_view(answer, 12) == "HTTP/1.1 503";
  }
  EXPECT_GE(told, 4);
  release.open();
}

TEST_F(ServerClientTest, ConnectionsBeyondTheLimitWait) {
  ServerOptions options;
  options.max_connections = 2;
  auto serving = start(echo, options);
  FileDescriptor a = connect();
  FileDescriptor b = connect();
  EXPECT_TRUE(eventually([&] { return server_->counters().open_connections == 2; }));
  Gate done;
  std::string body;
  std::thread third([&] {
    body = get("/");
    done.open();
  });
  EXPECT_FALSE(done.wait(100ms));
  a.reset();
  EXPECT_TRUE(done.wait());
  third.join();
  EXPECT_EQ(body, "GET ");
}

TEST_F(ServerClientTest, StopEndsEverything) {
  std::shared_ptr<EventStream> stream;
  std::shared_ptr<PendingResponse> pending;
  Gate started;
  Gate stream_closed;
  Gate cut;
  auto serving = start([&](Request& request, Response& response) {
    if (request.head().path == "/stream") {
      stream = response.stream({});
      stream->on_closed([&] { stream_closed.open(); });
    } else if (request.head().path == "/pending") {
      pending = response.defer({.timeout = 60s, .timeout_status = 503});
    } else {
      started.open();
      char byte = 0;
      EXPECT_FALSE(request.read(&byte, 1).ok());  // the body never comes
      cut.open();
    }
  });
  auto events = client_.send(request("/stream"));
  ASSERT_TRUE(events.ok());
  int status = 0;
  std::thread waiter([&] {
    HttpClient client;
    auto answer = client.send(request("/pending"));
    if (answer.ok()) status = (*answer)->status();
  });
  EXPECT_TRUE(eventually([&] { return server_->counters().pending == 1; }));
  FileDescriptor fd = connect();
  send_some(fd.get(), "PUT /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
  ASSERT_TRUE(started.wait());
  server_->stop(50ms);
  waiter.join();
  EXPECT_EQ(status, 503);
  EXPECT_TRUE(stream_closed.wait());
  EXPECT_TRUE(cut.wait());
  EXPECT_EQ(client_.send(request("/")).code(), Code::kUnavailable);
  EXPECT_FALSE(pending->complete(200, {}, ""));
  EXPECT_EQ(stream->send({"x", "", ""}).code(), Code::kCancelled);
  server_.reset();
}

TEST(EventReaderTest, ParsesTheFormat) {
  std::string text =
      "\xEF\xBB\xBF: comment\r\nevent: a\rdata:1\ndata: 2\r\n\r\nid: 5\ndata\n\nretry: 10\n\n"
      "data: unfinished";
  for (size_t step : {size_t{1}, size_t{3}, text.size()}) {
    size_t at = 0;
    EventReader reader([&](char* buffer, size_t size) -> Result<size_t> {
      size_t take = std::min({step, size, text.size() - at});
      text.copy(buffer, take, at);
      at += take;
      return take;
    });
    auto first = *reader.next();
    ASSERT_TRUE(first);
    EXPECT_EQ(first->name, "a");
    EXPECT_EQ(first->data, "1\n2");
    auto second = *reader.next();
    ASSERT_TRUE(second);
    EXPECT_EQ(second->name, "message");
    EXPECT_EQ(second->data, "");
    EXPECT_EQ(second->id, "5");
    EXPECT_FALSE((*reader.next()).has_value());
  }
}

TEST(EventReaderTest, BoundsAnEvent) {
  EventReader reader(
      [](char* buffer, size_t size) -> Result<size_t> {
        std::fill(buffer, buffer + size, 'x');
        return size;
      },
      100'000);
  EXPECT_EQ(reader.next().code(), Code::kTooLarge);
}

}  // namespace
}  // namespace qanat::net
