// The whole worker against a server without a repo: what a datum sees, what becomes of it, and what
// survives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "qanat/base/clock.h"
#include "worker/sandboxed_worker.h"

namespace qanat::testing {
namespace {

using api::DatumOutcome;
using ::testing::HasSubstr;
using ::testing::Not;

class WorkerLoop : public ::testing::Test {
 protected:
  // Runs datums to their end, and gives what came of them.
  std::map<std::string, Delivered> run(std::vector<FakeDatum> datums) {
    const size_t count = datums.size();
    worker_.start();
    worker_.server().add(std::move(datums));
    EXPECT_TRUE(worker_.server().wait_delivered(count)) << worker_.output();
    return worker_.server().delivered();
  }
  Delivered run_one(FakeDatum datum = {.id = "d1", .files = {{"in/a", "hello"}}}) {
    const std::string id = datum.id;
    return run({std::move(datum)})[id];
  }

  SandboxedWorker worker_;
};

TEST_F(WorkerLoop, RunsDatumsAndDeliversTheirFiles) {
  worker_.run_script("cp -r /pfs/in/. /pfs/out/; echo \"$GREETING $PACH_DATUM_ID $from_image\"");
  worker_.server().hello.transform.env = {{"GREETING", "hi"}};
  worker_.server().hello.transform.image_env = {"from_image=yes", "GREETING=overridden"};
  auto delivered = run({{.id = "d1", .files = {{"in/a", "one"}, {"in/dir/b", "two"}}},
                        {.id = "d2", .files = {{"in/c", ""}}},
                        {.id = "d3", .files = {{"in/d", std::string("\0\xff", 2)}}}});
  EXPECT_EQ(delivered["d1"].files,
            (std::map<std::string, std::string>{{"a", "one"}, {"dir/b", "two"}}));
  EXPECT_EQ(delivered["d2"].files, (std::map<std::string, std::string>{{"c", ""}}));
  EXPECT_EQ(delivered["d3"].files["d"], std::string("\0\xff", 2));
  const api::DatumReport& report = delivered["d1"].report;
  EXPECT_EQ(report.state, DatumOutcome::kSuccess);
  EXPECT_EQ(report.attempts, 1);
  EXPECT_EQ(report.input_bytes, 6u);
  EXPECT_EQ(report.output_files, 2u);
  EXPECT_GT(report.started.ms, 0);
  EXPECT_GE(report.finished.ms, report.started.ms);
  EXPECT_THAT(delivered["d1"].log, HasSubstr("\"text\":\"hi d1 yes\""));
  EXPECT_THAT(delivered["d1"].log, HasSubstr("\"stream\":\"stdout\""));
}

TEST_F(WorkerLoop, RetriesInACleanSandboxAndThenFails) {
  worker_.server().hello.settings.datum_tries = 3;
  worker_.run_script(
      "echo try >> /pfs/in/a; echo partial > /pfs/out/x; cat /pfs/in/a; echo oh dear >&2; exit 7");
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kFailed);
  EXPECT_EQ(result.report.attempts, 3);
  EXPECT_EQ(result.report.exit_code, 7);
  EXPECT_THAT(result.report.reason, HasSubstr("ended with code 7"));
  EXPECT_TRUE(result.files.empty());
  EXPECT_THAT(result.log, HasSubstr("attempt 3 of 3 failed"));
  EXPECT_THAT(result.log, HasSubstr("oh dear"));
  // Each attempt saw the input as it was.
  EXPECT_THAT(result.log, Not(HasSubstr("try\ntry")));
  size_t hellos = 0;
  for (size_t at = 0; (at = result.log.find("hellotry", at)) != std::string::npos; ++at) ++hellos;
  EXPECT_EQ(hellos, 3u);
}

TEST_F(WorkerLoop, AcceptedCodesAreSuccess) {
  worker_.server().hello.transform.accept_return_code = {3};
  worker_.run_script("echo x > /pfs/out/x; exit 3");
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kSuccess);
  EXPECT_EQ(result.files.size(), 1u);
}

TEST_F(WorkerLoop, ErrCmdRecoversADatumThatFailed) {
  worker_.server().hello.settings.datum_tries = 2;
  worker_.run_script("echo x > /pfs/out/x; exit 1");
  worker_.server().hello.transform.err_cmd = {"sh"};
  worker_.server().hello.transform.err_stdin = {"echo handled", "test -e /pfs/out/x"};
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kRecovered);
  EXPECT_EQ(result.report.attempts, 2);
  EXPECT_TRUE(result.files.empty());
  EXPECT_THAT(result.log, HasSubstr("handled"));
}

TEST_F(WorkerLoop, TimeoutKillsTheWholeTree) {
  worker_.server().hello.settings.datum_timeout_ms = 200;
  worker_.run_script("sleep 1000 & sh -c 'sleep 1000' & wait");
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kFailed);
  EXPECT_THAT(result.report.reason, HasSubstr("datum_timeout"));
  EXPECT_LT(result.report.process_ms, 10'000);
}

TEST_F(WorkerLoop, NothingOfADatumOutlivesIt) {
  worker_.run_script(
      "ls /proc | grep '^[0-9]*$' > /pfs/out/processes; (setsid sleep 1000 &) ; setsid nohup sleep "
      "1000 >/dev/null 2>&1 & exit 0");
  auto delivered =
      run({{.id = "d1", .files = {{"in/a", ""}}}, {.id = "d2", .files = {{"in/a", ""}}}});
  for (const char* id : {"d1", "d2"}) {
    // Process 1, the shell, and what lists.
    const std::string& list = delivered[id].files["processes"];
    EXPECT_LE(std::count(list.begin(), list.end(), '\n'), 4) << list;
    EXPECT_EQ(list.substr(0, 2), "1\n");
  }
}

TEST_F(WorkerLoop, ADatumHandsNothingToTheNext) {
  // Files, links, deep folders, another's sticky bit, and what needs no file at all.
  worker_.run_script(
      "for d in /tmp /dev/shm; do ls -A $d; done > /pfs/out/found; ipcs -a | grep -c '^0x' >> "
      "/pfs/out/found; "
      "ls -ld /tmp | cut -c1-10 >> /pfs/out/found; "
      "echo secret > /tmp/left; ln -s /pfs /tmp/link; mkdir -p /tmp/.a/b/c /dev/shm/d; echo x > "
      "/tmp/.a/b/c/x; chmod 000 /tmp/.a; echo x > /dev/shm/d/x; mkfifo /tmp/pipe; "
      "ipcmk -M 4096 -S 2 -Q; ln -s /tmp/left /pfs/out/by_link; chmod 700 /tmp; true");
  auto delivered =
      run({{.id = "d1", .files = {{"in/a", ""}}}, {.id = "d2", .files = {{"in/a", ""}}}});
  for (const char* id : {"d1", "d2"}) {
    EXPECT_EQ(delivered[id].report.state, DatumOutcome::kSuccess) << delivered[id].report.reason;
    EXPECT_EQ(delivered[id].files["found"], "0\ndrwxrwxrwt\n") << id;
    EXPECT_EQ(delivered[id].files["by_link"], "secret\n") << "output may lead there";
  }
}

TEST_F(WorkerLoop, EachAttemptFindsItsScratchClean) {
  worker_.server().hello.settings.datum_tries = 2;
  worker_.run_script("test -e /tmp/left && echo found it; touch /tmp/left; exit 1");
  Delivered result = run_one();
  EXPECT_EQ(result.report.attempts, 2);
  EXPECT_THAT(result.log, Not(HasSubstr("\"found it")));
}

TEST_F(WorkerLoop, UserCodeCannotReachTheWorker) {
  worker_.run_script(
      "(cat /proc/1/environ; cat /proc/1/mem; cat /proc/1/fd/*; readlink /proc/1/fd/*; cat "
      "/proc/1/maps) > /pfs/out/got; "
      "env "
      "> /pfs/out/env; ls /proc/self/fd > /pfs/out/fds; grep -E 'NoNewPrivs|CapEff' "
      "/proc/self/status > /pfs/out/status; ls /home /root > /pfs/out/home; touch /usr/x /qanat/x "
      "|| echo refused > /pfs/out/refused; true");
  Delivered result = run_one();
  ASSERT_EQ(result.report.state, DatumOutcome::kSuccess) << result.report.reason;
  EXPECT_EQ(result.files["got"], "");
  EXPECT_THAT(result.files["env"], Not(HasSubstr("QANAT")));
  EXPECT_THAT(result.files["status"], HasSubstr("NoNewPrivs:\t1"));
  // Nothing beyond worker_capabilities(): no SYS_ADMIN, no SYS_PTRACE.
  EXPECT_THAT(result.files["status"], HasSubstr("CapEff:\t00000000000004fb"));
  EXPECT_EQ(result.files["home"], "/home:\n\n/root:\n");
  EXPECT_EQ(result.files["refused"], "refused\n");
  EXPECT_LE(result.files["fds"].size(), 8u) << result.files["fds"];  // 0 1 2 and the listing's own
}

TEST_F(WorkerLoop, RunsAsTheUserAskedFor) {
  worker_.server().hello.transform.user = "nobody";
  worker_.run_script(
      "id -u > /pfs/out/id; echo more >> /pfs/in/a; cat /pfs/in/a > /pfs/out/a; mkdir "
      "/pfs/out/private; echo x > /pfs/out/private/x; chmod 000 /pfs/out/private/x "
      "/pfs/out/private; grep CapEff /proc/self/status > /pfs/out/caps");
  Delivered result = run_one();
  ASSERT_EQ(result.report.state, DatumOutcome::kSuccess) << result.report.reason << result.log;
  EXPECT_EQ(result.files["id"], "65534\n");
  EXPECT_EQ(result.files["a"], "hellomore\n");
  EXPECT_EQ(result.files["private/x"], "x\n");
  EXPECT_THAT(result.files["caps"], HasSubstr("0000000000000000"));
}

TEST_F(WorkerLoop, AnUnknownUserFailsWithItsName) {
  worker_.server().hello.transform.user = "nemo";
  worker_.run_script("true");
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kFailed);
  EXPECT_THAT(result.report.reason, HasSubstr("nemo"));
}

TEST_F(WorkerLoop, LinksAreFollowedWithTheUsersRights) {
  worker_.server().hello.transform.user = "nobody";
  worker_.run_script("eval \"$DO\"");
  std::map<std::string, std::string> in = {{"in/a", "hello"}, {"in/d/b", "deep"}};
  auto delivered = run({
      {.id = "input",
       .files = in,
       .env = {{"DO", "ln -s /pfs/in/a /pfs/out/l; ln -s ../in/d /pfs/out/dir"}}},
      {.id = "shadow", .files = in, .env = {{"DO", "ln -s /etc/shadow /pfs/out/l"}}},
      {.id = "token", .files = in, .env = {{"DO", "ln -s /proc/1/environ /pfs/out/l"}}},
      {.id = "status", .files = in, .env = {{"DO", "ln -s /proc/self/status /pfs/out/l"}}},
      {.id = "dangling", .files = in, .env = {{"DO", "ln -s nowhere /pfs/out/l"}}},
      {.id = "circle", .files = in, .env = {{"DO", "ln -s . /pfs/out/l"}}},
      {.id = "pipe", .files = in, .env = {{"DO", "mkfifo /pfs/out/p"}}},
      {.id = "device", .files = in, .env = {{"DO", "ln -s /dev/zero /pfs/out/z"}}},
      {.id = "name", .files = in, .env = {{"DO", "touch \"$(printf '/pfs/out/a\\377')\""}}},
      {.id = "newline", .files = in, .env = {{"DO", "touch \"$(printf '/pfs/out/a\\nb')\""}}},
  });
  EXPECT_EQ(delivered["input"].files,
            (std::map<std::string, std::string>{{"l", "hello"}, {"dir/b", "deep"}}));
  EXPECT_THAT(delivered["shadow"].report.reason, HasSubstr("may not read"));
  EXPECT_THAT(delivered["token"].report.reason, HasSubstr("symbolic link"));
  EXPECT_THAT(delivered["status"].report.reason, HasSubstr("symbolic link"));
  EXPECT_THAT(delivered["dangling"].report.reason, HasSubstr("leads nowhere"));
  EXPECT_THAT(delivered["circle"].report.reason, HasSubstr("contains it"));
  EXPECT_THAT(delivered["pipe"].report.reason, HasSubstr("named pipe"));
  EXPECT_THAT(delivered["device"].report.reason, HasSubstr("device"));
  EXPECT_THAT(delivered["name"].report.reason, HasSubstr("UTF-8"));
  EXPECT_THAT(delivered["newline"].report.reason, HasSubstr("no repo can hold"));
  for (auto& [id, result] : delivered) {
    EXPECT_EQ(result.report.state, id == "input" ? DatumOutcome::kSuccess : DatumOutcome::kFailed)
        << id;
    EXPECT_EQ(result.files.empty(), id != "input") << id;
  }
}

TEST_F(WorkerLoop, RootsLinksIntoTheKernelAreRefused) {
  worker_.run_script("ln -s /proc/1/environ /pfs/out/l");
  EXPECT_EQ(run_one().report.state, DatumOutcome::kFailed);
}

TEST_F(WorkerLoop, HostileFoldersAreCleanedWithoutFollowing) {
  // What links lead to must survive the cleaning: the socket folder stands for it.
  std::ofstream(worker_.sockets() + "/precious") << "still here";
  worker_.run_script("eval \"$DO\"");
  auto delivered = run({
      {.id = "1",
       .files = {{"in/a", ""}},
       .env = {{"DO", "ln -s /qanat/run /pfs/in/l; ln -s /tmp /pfs/x; echo kept > /tmp/kept"}}},
      {.id = "2", .files = {{"in/a", ""}}, .env = {{"DO", "rm -r /pfs/out; ln -s /tmp /pfs/out"}}},
      {.id = "3", .files = {{"in/a", ""}}, .env = {{"DO", "rm -r /pfs/out"}}},
      {.id = "4",
       .files = {{"in/a", ""}},
       .env = {{"DO",
                "rm -r /pfs/out; mkdir /pfs/out; test -e /tmp/kept || echo gone > /pfs/out/f"}}},
      {.id = "5",
       .files = {{"in/a", ""}},
       .env = {{"DO", "cd /pfs/in; for i in $(seq 150); do mkdir d; cd d; done; true"}}},
      {.id = "6", .files = {{"in/a", ""}}, .env = {{"DO", "ls -A /pfs /pfs/in > /pfs/out/f"}}},
  });
  EXPECT_EQ(delivered["1"].report.state, DatumOutcome::kSuccess);
  EXPECT_THAT(delivered["2"].report.reason, HasSubstr("in the place of /pfs/out"));
  EXPECT_THAT(delivered["3"].report.reason, HasSubstr("removed /pfs/out"));
  EXPECT_EQ(delivered["4"].files["f"], "gone\n");
  EXPECT_EQ(delivered["5"].report.state, DatumOutcome::kSuccess);
  EXPECT_EQ(delivered["6"].files["f"], "/pfs:\nin\nout\n\n/pfs/in:\na\n");
  std::string content;
  std::getline(std::ifstream(worker_.sockets() + "/precious"), content);
  EXPECT_EQ(content, "still here");
}

TEST_F(WorkerLoop, LogsAreBounded) {
  worker_.server().hello.settings.log_limit = 20'000;
  worker_.run_script("seq 100000; echo last >&2");
  Delivered result = run_one();
  EXPECT_LT(result.log.size(), 200'000u);
  EXPECT_THAT(result.log, HasSubstr("\"text\":\"1\""));
  EXPECT_THAT(result.log, HasSubstr("\"text\":\"100000\""));
  EXPECT_THAT(result.log, HasSubstr("left out"));
  EXPECT_THAT(result.log, HasSubstr("\"text\":\"last\""));
}

TEST_F(WorkerLoop, FollowersGetLinesWhileTheDatumRuns) {
  worker_.server().follow();
  worker_.run_script("while [ ! -e /qanat/run/go ]; do echo tick; sleep 0.05; done; echo finished");
  worker_.start();
  worker_.server().add({{.id = "d1", .files = {{"in/a", ""}}}});
  EXPECT_TRUE(worker_.server().wait_live("tick"));
  EXPECT_TRUE(worker_.server().delivered().empty());
  std::ofstream(worker_.sockets() + "/go");
  EXPECT_TRUE(worker_.server().wait_delivered(1));
  EXPECT_THAT(worker_.server().delivered()["d1"].log, HasSubstr("finished"));
}

TEST_F(WorkerLoop, ARestartOfTheServerDoesNotDisturbTheDatum) {
  worker_.run_script("while [ ! -e /qanat/run/go ]; do sleep 0.02; done; echo done > /pfs/out/x");
  worker_.start();
  worker_.server().add({{.id = "d1", .files = {{"in/a", ""}}}});
  ASSERT_TRUE(worker_.server().wait_renewed("d1"));
  worker_.server().stop();
  std::ofstream(worker_.sockets() + "/go");  // it ends while nobody listens
  worker_.server().start();
  ASSERT_TRUE(worker_.server().wait_delivered(1)) << worker_.output();
  Delivered result = worker_.server().delivered()["d1"];
  EXPECT_EQ(result.report.attempts, 1);
  EXPECT_EQ(result.files["x"], "done\n");
  EXPECT_EQ(worker_.server().calls().hellos, 1);
  EXPECT_EQ(worker_.server().calls().inputs, 1);
}

TEST_F(WorkerLoop, ACancelledDatumIsKilledAndNotReported) {
  worker_.run_script("[ $PACH_DATUM_ID = d2 ] || sleep 1000");
  worker_.server().batch = 1;
  worker_.start();
  worker_.server().add({{.id = "d1", .files = {{"in/a", ""}}}});
  ASSERT_TRUE(worker_.server().wait_renewed("d1"));
  worker_.server().cancel("d1");
  worker_.server().add({{.id = "d2", .files = {{"in/a", ""}}}});
  ASSERT_TRUE(worker_.server().wait_delivered(1));
  EXPECT_EQ(worker_.server().delivered().count("d1"), 0u);
  EXPECT_EQ(worker_.server().delivered().count("d2"), 1u);
}

TEST_F(WorkerLoop, AnUnwantedWorkerEnds) {
  worker_.run_script("sleep 1000");
  worker_.start();
  worker_.server().add({{.id = "d1", .files = {{"in/a", ""}}}});
  ASSERT_TRUE(worker_.server().wait_renewed("d1"));
  worker_.server().dismiss();
  EXPECT_EQ(worker_.wait(), 0) << worker_.output();
  EXPECT_EQ(worker_.exit_file(), "exit 0\n");
}

TEST_F(WorkerLoop, ACommandThatDoesNotExistIsNamedAtOnce) {
  worker_.server().hello.settings.datum_tries = 3;
  worker_.server().hello.transform.cmd = {"no-such-program", "x"};
  Delivered result = run_one();
  EXPECT_EQ(result.report.state, DatumOutcome::kFailed);
  EXPECT_EQ(result.report.attempts, 1);
  EXPECT_THAT(result.report.reason, HasSubstr("no-such-program"));
  EXPECT_FALSE(result.report.hint.empty());
}

TEST_F(WorkerLoop, AMissingWorkingDirectoryIsNamed) {
  worker_.server().hello.transform.working_dir = "/no/such/folder";
  worker_.run_script("true");
  EXPECT_THAT(run_one().report.reason, HasSubstr("transform.working_dir"));
}

TEST_F(WorkerLoop, AFailureForWantOfANetworkNamesTheField) {
  worker_.run_script("echo 'curl: (6) Could not resolve host: example.com' >&2; exit 6");
  Delivered result = run_one();
  EXPECT_THAT(result.report.hint, HasSubstr("transform.network"));
}

TEST_F(WorkerLoop, LargeInputAndOutputAreStreamed) {
  worker_.run_script("cat /pfs/in/big /pfs/in/big > /pfs/out/twice; echo small > /pfs/out/a");
  std::string big(6 << 20, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 31 + (i >> 12));
  Delivered result = run_one({.id = "d1", .files = {{"in/big", big}}});
  ASSERT_EQ(result.report.state, DatumOutcome::kSuccess) << result.report.reason;
  EXPECT_TRUE(result.files["twice"] == big + big);
  EXPECT_EQ(result.files["a"], "small\n");
  EXPECT_EQ(result.report.output_files, 2u);
}

TEST_F(WorkerLoop, ManySmallDatumsAreFewRequests) {
  worker_.server().hello.transform.cmd = {"cp", "-r", "/pfs/in/.", "/pfs/out/"};
  std::vector<FakeDatum> datums;
  for (int i = 0; i < 150; ++i) {
    datums.push_back({.id = "d" + std::to_string(i),
                      .files = {{"in/f" + std::to_string(i), std::string(4096, 'x')}}});
  }
  const int64_t start_ms = real_clock().monotonic_ms();
  auto delivered = run(std::move(datums));
  const int64_t taken_ms = real_clock().monotonic_ms() - start_ms;
  for (auto& [id, result] : delivered) {
    EXPECT_EQ(result.files.size(), 1u);
    EXPECT_EQ(result.times, 1);
  }
  EXPECT_LE(worker_.server().calls().inputs, 10);
  // Every 100 ms, and when there is nothing left to run.
  EXPECT_LE(worker_.server().calls().results, 10 + taken_ms / 100);
}

}  // namespace
}  // namespace qanat::testing
