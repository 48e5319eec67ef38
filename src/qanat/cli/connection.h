// Connection: which server a command talks to, as whom, and the calls themselves.
//
// Server and token come from, in this order: the flags --server and --token; QANAT_SERVER and
// QANAT_TOKEN; the context of the configuration file (`qanat config`); the server that runs on this
// machine as this user, if it is the only one: servers leave their addresses in the state folder
// (local_server.h). One object a command; calls may be made by several threads at once, each on a
// connection of its own.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "qanat/api/describe.h"
#include "qanat/api/file_stream.h"
#include "qanat/api/routes.h"
#include "qanat/base/status.h"
#include "qanat/net/http_client.h"

namespace qanat::cli {

using Parameters = std::map<std::string, std::string, std::less<>>;

struct ConnectionFlags {
  std::string server;
  std::string token;
  std::string context;  // of the configuration file
};

class Connection {
 public:
  // Finds server and token; does not connect yet. kFailedPrecondition says how to start or name a
  // server.
  static Result<std::unique_ptr<Connection>> open(const ConnectionFlags& flags);
  virtual ~Connection() = default;

  const std::string& server() const { return server_; }
  // Where server and token were found, for `config` and for errors.
  const std::string& origin() const { return origin_; }

  // A call by the id of its route (api/routes.h). `parameters` fill the path; `query` follows it.
  // An error of the server comes back as its Status; one of the network says which server did not
  // answer.
  virtual Result<std::string> call(std::string_view route, const Parameters& parameters,
                                   const Parameters& query = {}, std::string body = {}) = 0;
  // The same with a body that is streamed, of the type given; `length` if it is known.
  virtual Result<std::string> upload(std::string_view route, const Parameters& parameters,
                                     const Parameters& query, net::BodySource body,
                                     std::string_view content_type,
                                     std::optional<uint64_t> length = std::nullopt) = 0;
  // The same with bytes that are no JSON, both ways.
  virtual Result<std::string> exchange_bytes(std::string_view route, const Parameters& parameters,
                                             std::string body) = 0;
  // The same without a body, through the server's Unix socket, passing it `file` open.
  // kFailedPrecondition: the server is not on this machine, or cannot be reached there.
  virtual Result<std::string> pass_file(std::string_view route, const Parameters& parameters,
                                        const Parameters& query, int file) = 0;
  // The answer's body, to be read in pieces. `offset` > 0 asks for the rest from there (Range).
  virtual Result<std::unique_ptr<net::ClientResponse>> download(std::string_view route,
                                                                const Parameters& parameters,
                                                                const Parameters& query,
                                                                std::string_view range = {}) = 0;
  // Server-sent events until the server ends the stream, or `visit` gives false.
  virtual Status events(std::string_view route, const Parameters& parameters,
                        const Parameters& query,
                        const std::function<Result<bool>(const net::Event&)>& visit) = 0;

  template <class T>
  Result<T> get(std::string_view route, const Parameters& parameters,
                const Parameters& query = {}) {
    QANAT_ASSIGN_OR_RETURN(const std::string text, call(route, parameters, query));
    return api::parse_json<T>(text, {.ignore_unknown = true});
  }
  template <class T, class Body>
  Result<T> send(std::string_view route, const Parameters& parameters, const Body& body,
                 const Parameters& query = {}) {
    QANAT_ASSIGN_OR_RETURN(const std::string text,
                           call(route, parameters, query, api::json_text(body)));
    return api::parse_json<T>(text, {.ignore_unknown = true});
  }
  // All pages of a list (a type with `items` and `next`), or the first `limit` items.
  template <class List>
  Result<decltype(List::items)> list(std::string_view route, const Parameters& parameters,
                                     Parameters query = {}, size_t limit = SIZE_MAX) {
    decltype(List::items) items;
    while (true) {
      if (limit != SIZE_MAX)
        query["limit"] = std::to_string(std::min<size_t>(limit - items.size(), 1000));
      QANAT_ASSIGN_OR_RETURN(List page, get<List>(route, parameters, query));
      for (auto& item : page.items) {
        if (items.size() < limit) items.push_back(std::move(item));
      }
      if (page.next.empty() || items.size() >= limit) return items;
      query["page"] = page.next;
    }
  }

 protected:
  std::string server_;
  std::string token_;
  std::string origin_;
};

}  // namespace qanat::cli
