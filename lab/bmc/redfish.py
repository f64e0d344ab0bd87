"""The real sushy-tools Redfish emulator in front of a lab host.

Only the driver is ours: it reads and switches the host through `zylab chassis`, and takes
power supplies, fans and temperatures from `sensors.json` in the host's folder. The mode in
the file `bmc-mode` makes the BMC slow, lying, another host's, or refuse the login.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import bcrypt
from flask import request
from sushy_tools.emulator import main
from sushy_tools.emulator.resources.systems import fakedriver

parser = argparse.ArgumentParser()
for name in ("zylab", "lab", "host", "folder", "address", "port"):
    parser.add_argument("--" + name, required=True)
options = parser.parse_args()
OTHER_UUID = "00000000-0000-4000-8000-00000000dead"
SLOW_SECONDS = 20


def read(name):
    with open(os.path.join(options.folder, name)) as file:
        return file.read().strip()


def mode():
    return read("bmc-mode")


def chassis(*arguments):
    command = [options.zylab, "chassis", "--name", options.lab, options.host, "--", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class LabDriver(fakedriver.FakeDriver):
    def _system(self):
        uuid = OTHER_UUID if mode() == "other-host" else read("uuid")
        return {"uuid": uuid, "name": options.host, "power_state": "On", "nics": []}

    def _get(self, identity):
        return self._system()

    @property
    def systems(self):
        return [self._system()["uuid"]]

    def uuid(self, identity):
        return self._system()["uuid"]

    def get_power_state(self, identity):
        if mode() == "slow":
            time.sleep(SLOW_SECONDS)
        return chassis("get-state")

    def set_power_state(self, identity, state):
        if mode() == "slow":
            time.sleep(SLOW_SECONDS)
        if state in ("On", "ForceOn"):
            chassis("set", "power", "1")
        elif state in ("ForceOff", "GracefulShutdown"):
            chassis("set", "power", "0")
        elif "Restart" in state:
            chassis("set", "reset", "1")


def sensors():
    path = os.path.join(options.folder, "sensors.json")
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)


def status(health):
    return {"State": "Enabled", "Health": health}


def thermal(identity):
    state = sensors()
    base = "/redfish/v1/Chassis/%s/Thermal" % identity
    temperature = state.get("temperature", 41)
    fans = [{"@odata.id": "%s#/Fans/%d" % (base, i), "MemberId": str(i), "Name": "Fan %d" % (i + 1),
             "Reading": 0 if state.get("fan_failed") == i + 1 else 5000, "ReadingUnits": "RPM",
             "Status": status("Critical" if state.get("fan_failed") == i + 1 else "OK")} for i in range(4)]
    return json.dumps({
        "@odata.id": base, "@odata.type": "#Thermal.v1_3_0.Thermal", "Id": "Thermal", "Name": "Thermal",
        "Temperatures": [{"@odata.id": base + "#/Temperatures/0", "MemberId": "0", "Name": "CPU Temp",
                          "ReadingCelsius": temperature, "UpperThresholdNonCritical": 80, "UpperThresholdCritical": 95,
                          "PhysicalContext": "CPU",
                          "Status": status("Critical" if temperature >= 95 else "Warning" if temperature >= 80 else "OK")}],
        "Fans": fans}), 200, {"Content-Type": "application/json"}


def power(identity):
    state = sensors()
    base = "/redfish/v1/Chassis/%s/Power" % identity
    failed = state.get("psu_failed")
    supplies = [{"@odata.id": "%s#/PowerSupplies/%d" % (base, i), "MemberId": str(i), "Name": "PSU %d" % (i + 1),
                 "PowerOutputWatts": 0 if failed == i + 1 else 120, "LineInputVoltage": 0 if failed == i + 1 else 230,
                 "Status": status("Critical" if failed == i + 1 else "OK")} for i in range(2)]
    return json.dumps({
        "@odata.id": base, "@odata.type": "#Power.v1_5_0.Power", "Id": "Power", "Name": "Power",
        "PowerControl": [{"@odata.id": base + "#/PowerControl/0", "MemberId": "0", "PowerConsumedWatts": 240}],
        "PowerSupplies": supplies,
        "Redundancy": [{"@odata.id": base + "#/Redundancy/0", "MemberId": "0", "Name": "PSU redundancy", "Mode": "N+m",
                        "MinNumNeeded": 1, "MaxNumSupported": 2,
                        "Status": {"State": "Enabled", "Health": "Warning" if failed else "OK"}}]}), \
        200, {"Content-Type": "application/json"}


def with_power(resource):
    """The emulator's chassis and the link to its power supplies, which the emulator does not have: a reader finds
    them by it alone."""
    def chassis_resource(identity):
        answer = main.app.make_response(resource(identity))
        if request.method == "GET" and answer.status_code == 200:
            document = json.loads(answer.get_data())
            document["Power"] = {"@odata.id": "/redfish/v1/Chassis/%s/Power" % identity}
            answer.set_data(json.dumps(document))
        return answer
    return chassis_resource


fakedriver.FakeDriver = LabDriver
state_folder = os.path.join(options.folder, "redfish", "state")
os.makedirs(state_folder, exist_ok=True)
auth_file = os.path.join(options.folder, "redfish", "users")
hashed = bcrypt.hashpw(read("bmc-password").encode(), bcrypt.gensalt(rounds=4, prefix=b"2b")).decode()
with open(os.open(auth_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    file.write("fence:" + hashed.replace("$2b$", "$2y$", 1) + "\n")
main.app.configure(extra_config={
    "SUSHY_EMULATOR_FAKE_DRIVER": True, "SUSHY_EMULATOR_STATE_DIR": state_folder,
    "SUSHY_EMULATOR_AUTH_FILE": auth_file,
    "SUSHY_EMULATOR_FAKE_SYSTEMS": [{"uuid": read("uuid"), "name": options.host, "power_state": "On", "nics": []}]})


def login():
    """Whoever logs in as declared is refused, as after a password was changed on the BMC alone."""
    if mode() == "other-login":
        return "", 401
    return None


main.app.before_request(login)
main.app.view_functions["thermal_resource"] = thermal
main.app.view_functions["chassis_resource"] = with_power(main.app.view_functions["chassis_resource"])
main.app.add_url_rule("/redfish/v1/Chassis/<identity>/Power", "power_resource", power, methods=["GET"])
sys.exit(main.app.run(host=options.address, port=int(options.port), threaded=True))
