package cloud

import "testing"

func TestOperationNamesTheKindOfARequest(t *testing.T) {
	const id = "01a5568f-4766-4ce7-abf5-7d257892a5c5"
	for path, want := range map[string]string{
		"/account":                                              "GET /account",
		"/storage?label=csi-name%3Dpvc":                         "GET /storage",
		"/storage/" + id:                                        "GET /storage/{uuid}",
		"/storage/" + id + "?backups=keep":                      "GET /storage/{uuid}",
		"/server/" + id + "/storage/attach":                     "GET /server/{uuid}/storage/attach",
		"/ip_address/94.237.9.172":                              "GET /ip_address/{address}",
		"/ip_address/2a04:3545::1":                              "GET /ip_address/{address}",
		"/server/" + id + "/firewall_rule/1":                    "GET /server/{uuid}/firewall_rule/{index}",
		"/load-balancer/plans":                                  "GET /load-balancer/plans",
		"/load-balancer/" + id + "/frontends":                   "GET /load-balancer/{uuid}/frontends",
		"/load-balancer/" + id + "/labels/color":                "GET /load-balancer/{uuid}/labels/{name}",
		"/load-balancer/" + id + "/backends/web/members/node-1": "GET /load-balancer/{uuid}/backends/{name}/members/{name}",
	} {
		if got := operation("GET", path); got != want {
			t.Errorf("operation of %s is %q, want %q", path, got, want)
		}
	}
}

func TestOnlyUUIDsGetIntoPaths(t *testing.T) {
	for id, want := range map[string]bool{
		"01a5568f-4766-4ce7-abf5-7d257892a5c5":   true,
		"01A5568F-4766-4CE7-ABF5-7D257892A5C5":   true,
		"":                                       false,
		"node-1":                                 false,
		"../server":                              false,
		"01a5568f-4766-4ce7-abf5-7d257892a5c5/x": false,
		"{01a5568f-4766-4ce7-abf5-7d257892a5c5}": false,
	} {
		if got := isUUID(id); got != want {
			t.Errorf("isUUID(%q) = %t", id, got)
		}
	}
}
