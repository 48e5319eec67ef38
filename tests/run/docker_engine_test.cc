#include "qanat/run/docker_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "qanat/run/docker_runner.h"

namespace qanat::run {
namespace {

TEST(DockerEngine, ReadsAnImage) {
  auto image = parse_image(R"({"Id":"sha256:ab","Architecture":"amd64","Os":"linux","Config":{
      "User":"app","WorkingDir":"/w","Env":["A=b"],"Entrypoint":["/e"],"Cmd":null}})");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->digest, "sha256:ab");
  EXPECT_EQ(image->architecture, "amd64");
  EXPECT_EQ(image->user, "app");
  EXPECT_EQ(image->working_dir, "/w");
  EXPECT_EQ(image->env, std::vector<std::string>{"A=b"});
  EXPECT_EQ(image->entrypoint, std::vector<std::string>{"/e"});
  EXPECT_TRUE(image->cmd.empty());
}

TEST(DockerEngine, PodmansBareDigestBecomesADigest) {
  auto image = parse_image("{\"Id\":\"" + std::string(64, 'a') + "\"}");
  ASSERT_TRUE(image.ok());
  EXPECT_EQ(image->digest, "sha256:" + std::string(64, 'a'));
}

TEST(DockerEngine, NonsenseIsAnError) {
  EXPECT_FALSE(parse_image("<html>").ok());
  EXPECT_FALSE(parse_image("[]").ok());
  EXPECT_FALSE(parse_image("{}").ok());
  EXPECT_FALSE(parse_container_list("{}").ok());
}

TEST(DockerEngine, ReadsContainers) {
  auto list = parse_container_list(
      R"([{"Id":"1","State":"running","Created":5,"Labels":{"qanat.worker":"w"}},{"Id":"2","State":"exited","Labels":null}])");
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->size(), 2u);
  EXPECT_TRUE((*list)[0].running);
  EXPECT_EQ((*list)[0].labels.at("qanat.worker"), "w");
  EXPECT_FALSE((*list)[1].running);
  auto state = parse_container_state(
      R"({"State":{"Running":false,"ExitCode":137,"OOMKilled":true,"Error":""}})");
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->exit_code, 137);
  EXPECT_TRUE(state->oom_killed);
}

TEST(DockerRunner, AWorkerIsOverItsMemoryOnlyIfItWasKilled) {
  ContainerState state{.exit_code = 137, .oom_killed = true};
  EXPECT_TRUE(end_of_worker(state, false, "").oom);
  state.oom_killed = false;
  EXPECT_FALSE(end_of_worker(state, false, "").oom);
  EXPECT_TRUE(end_of_worker(state, true, "").oom);
  // The kernel killed user code once; later the worker ended by itself.
  state = {.exit_code = 1, .oom_killed = true};
  const WorkerEnd end = end_of_worker(state, false, "the server is away\n");
  EXPECT_FALSE(end.oom);
  EXPECT_EQ(end.exit_code, 1);
  EXPECT_EQ(end.reason, "the server is away");
  EXPECT_FALSE(end_of_worker(state, true, "").oom);
}

TEST(DockerEngine, AContainerIsClosedUnlessAsked) {
  ContainerSpec spec;
  spec.image = "sha256:1";
  spec.entrypoint = {"/qanat/bin/qanat-worker"};
  spec.mount_source = "/data/run/p";
  spec.mount_target = "/qanat";
  spec.capabilities = {"CHOWN"};
  spec.memory_bytes = 64 << 20;
  spec.cpus = 0.5;
  spec.pids = 100;
  auto body = nlohmann::json::parse(container_json(spec));
  const auto& host = body["HostConfig"];
  EXPECT_EQ(host["NetworkMode"], "none");
  EXPECT_EQ(host["CapDrop"], nlohmann::json::array({"ALL"}));
  EXPECT_EQ(host["SecurityOpt"], nlohmann::json::array({"no-new-privileges"}));
  ASSERT_EQ(host["Mounts"].size(), 1u);
  EXPECT_EQ(host["Mounts"][0]["ReadOnly"], true);
  EXPECT_EQ(host["Memory"], 64 << 20);
  EXPECT_EQ(host["MemorySwap"], 64 << 20);
  EXPECT_EQ(host["NanoCpus"], 500'000'000);
  EXPECT_EQ(host["PidsLimit"], 100);
  EXPECT_EQ(body["User"], "0:0");
  EXPECT_TRUE(body["Cmd"].is_array());
  spec.host_network = true;
  EXPECT_EQ(nlohmann::json::parse(container_json(spec))["HostConfig"]["NetworkMode"], "host");
}

TEST(DockerEngine, LogsLoseTheirFraming) {
  const std::string framed = std::string("\1\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\4two\n", 23);
  EXPECT_EQ(plain_log(framed), "onetwo\n");
  EXPECT_EQ(plain_log("not framed at all"), "not framed at all");
  EXPECT_EQ(plain_log(""), "");
}

TEST(DockerEngine, ErrorsKeepTheEnginesWords) {
  Status status = engine_error(404, R"({"message":"No such image: x"})");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("No such image: x"));
  EXPECT_THAT(engine_error(500, R"({"cause":"podman says"})").message(),
              ::testing::HasSubstr("podman says"));
  EXPECT_THAT(engine_error(500, "?").message(), ::testing::HasSubstr("500"));
}

TEST(DockerEngine, NamesOfPullsAreTakenApart) {
  EXPECT_EQ(pull_query("busybox"), "fromImage=busybox&tag=latest");
  EXPECT_EQ(pull_query("a/b:1.2"), "fromImage=a/b&tag=1.2");
  EXPECT_EQ(pull_query("host:5000/a"), "fromImage=host:5000/a&tag=latest");
  EXPECT_EQ(pull_query("host:5000/a:2"), "fromImage=host:5000/a&tag=2");
  EXPECT_EQ(pull_query("a@sha256:12"), "fromImage=a@sha256:12");
}

TEST(DockerEngine, PullsFailInTheirLines) {
  EXPECT_TRUE(pull_line(R"({"status":"Downloading","progressDetail":{"current":1}})").ok());
  EXPECT_TRUE(pull_line("").ok());
  EXPECT_TRUE(pull_line("no JSON").ok());
  const Status status = pull_line(R"({"errorDetail":{"message":"x"},"error":"denied"})");
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), "denied");
  EXPECT_EQ(pull_line(R"({"errorDetail":{"message":"x"},"error":null})").message(), "x");
}

TEST(DockerEngine, NothingThereIsUnavailable) {
  DockerEngine engine("/tmp/no-such-socket-of-an-engine");
  EXPECT_EQ(engine.ping().code(), Code::kUnavailable);
}

TEST(DockerHost, OnlyThisMachinesSockets) {
  EXPECT_EQ(*socket_of_docker_host("unix:///run/x.sock"), "/run/x.sock");
  Status remote = socket_of_docker_host("tcp://10.0.0.1:2375").status();
  EXPECT_EQ(remote.code(), Code::kFailedPrecondition);
  EXPECT_FALSE(remote.hint().empty());
  EXPECT_FALSE(socket_of_docker_host("ssh://x").ok());
}

}  // namespace
}  // namespace qanat::run
