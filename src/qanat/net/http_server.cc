#include "qanat/net/http_server.h"

#include "qanat/base/string.h"
#include "qanat/net/http_loop.h"

namespace qanat::net {
namespace {

class Server : public HttpServer {
 public:
  explicit Server(std::shared_ptr<HttpLoop> loop) : loop_(std::move(loop)) {}
  ~Server() override { loop_->stop(Milliseconds(2'000)); }

  Result<ListenerId> listen_tcp(const std::string& host, uint16_t port, Handler handler) override {
    std::string literal = host == "localhost" ? "127.0.0.1" : host;
    auto address = IpAddress::parse(literal);
    if (!address) {
      return invalid_argument(str_cat("cannot listen on ", host, ": it is not an IP address"),
                              "give an address such as 127.0.0.1 or 0.0.0.0");
    }
    auto listener = std::make_shared<Listener>();
    QANAT_ASSIGN_OR_RETURN(listener->fd, listen_on_tcp(*address, port));
    listener->port = local_port(listener->fd.get());
    listener->handler = std::move(handler);
    return loop_->add_listener(std::move(listener));
  }

  Result<ListenerId> listen_unix(const std::string& path, int mode, Handler handler,
                                 bool descriptors) override {
    auto listener = std::make_shared<Listener>();
    QANAT_ASSIGN_OR_RETURN(listener->fd, listen_on_unix(path, mode));
    listener->unix_path = path;
    listener->takes_descriptors = descriptors;
    listener->handler = std::move(handler);
    return loop_->add_listener(std::move(listener));
  }

  uint16_t port_of(ListenerId listener) const override { return loop_->port_of(listener); }
  void remove_listener(ListenerId listener, bool wait) override {
    loop_->remove_listener(listener, wait);
  }
  void stop(Milliseconds grace) override { loop_->stop(grace); }
  ServerCounters counters() const override { return loop_->counters(); }

 private:
  std::shared_ptr<HttpLoop> loop_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::create(ServerOptions options) {
  auto loop = std::make_shared<HttpLoop>(std::move(options));
  QANAT_RETURN_IF_ERROR(loop->open());
  return std::unique_ptr<HttpServer>(std::make_unique<Server>(std::move(loop)));
}

}  // namespace qanat::net
