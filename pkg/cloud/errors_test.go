package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
)

// kindsOfCodes is what each error code that concerns us means, status 409 given where a status is needed. Codes of
// products that this package does not use are in codesOfOthers; together they are all that the SDK knows.
var kindsOfCodes = map[error]string{
	ErrNotFound: `GROUP_NOT_FOUND HOST_NOT_FOUND INTERFACE_NOT_FOUND IP_ADDRESS_NOT_FOUND NETWORK_NOT_FOUND NOT_FOUND
		NO_STORAGES_ATTACHED RESOURCE_NOT_FOUND ROUTER_NOT_FOUND SERVER_NOT_FOUND SERVICE_NOT_FOUND
		STORAGE_IMPORT_NOT_FOUND STORAGE_NOT_FOUND TAG_NOT_FOUND USER_NOT_FOUND ZONE_NOT_FOUND FIREWALL_RULE_NOT_FOUND`,
	ErrUnauthorized: `AUTHENTICATION_FAILED`,
	ErrForbidden: `ACCOUNT_FORBIDDEN ACTION_FORBIDDEN GROUP_FORBIDDEN HOST_FORBIDDEN INTERFACE_FORBIDDEN
		IP_ADDRESS_FORBIDDEN NETWORK_FORBIDDEN SERVER_FORBIDDEN STORAGE_FORBIDDEN TAG_FORBIDDEN TRIAL_PLAN
		ZONE_HOST_FORBIDDEN`,
	ErrExhausted: `FIREWALL_RULE_LIMIT_REACHED FLOATING_IP_NOT_AVAILABLE INSUFFICIENT_CREDITS IP_ADDRESS_LIMIT_REACHED
		IP_ADDRESS_RESOURCES_UNAVAILABLE MAXIOPS_STORAGE_LIMIT_REACHED SERVER_CORE_LIMIT_REACHED
		SERVER_CREATING_LIMIT_REACHED SERVER_IP_LIMIT_REACHED SERVER_MEMORY_LIMIT_REACHED SERVER_RESOURCES_UNAVAILABLE
		STATIC_ROUTE_LIMIT_REACHED STORAGE_DEVICE_LIMIT_REACHED STORAGE_RESOURCES_UNAVAILABLE
		STRICT_ANTI_AFFINITY_NOT_MET`,
	ErrAlreadyExists: `ALREADY_IN_SERVER_GROUP DUPLICATE_RESOURCE DUPLICATE_ROUTE FIREWALL_RULE_EXISTS INTERFACE_EXISTS
		RESOURCE_ALREADY_EXISTS SERVICE_EXISTS TAG_EXISTS`,
	ErrInUse: `ADDRESS_ATTACHED NETWORK_NOT_EMPTY ROUTER_ATTACHED STORAGE_ATTACHED STORAGE_ATTACHED_AS_CDROM
		HOT_RESIZE_NOT_ENABLED HOT_RESIZE_UNAVAILABLE STORAGE_ATTACHED_AS_DISK STORAGE_IN_USE`,
	ErrBusy:        `DEVICE_ADDRESS_IN_USE DEVICE_ADDRESS_NOT_IN_USE HOTPLUG_FAILED SERVER_STATE_ILLEGAL STORAGE_STATE_ILLEGAL`,
	ErrServerState: `CDROM_HOTPLUG_UNSUPPORTED IDE_HOTPLUG_UNSUPPORTED STORAGE_INCONSISTENT`,
	ErrUnavailable: `RESIZE_FAILED SERVICE_ERROR`,
	ErrInvalid: `ACTION_INVALID ACTION_MISSING ADDRESS_INVALID ADDRESS_MISSING ADDRESS_OR_UUID_REQUIRED
		BACKUP_DELETION_POLICY_INVALID BACKUP_RULE_CONFLICT BACKUP_RULE_INVALID BOOT_ORDER_INVALID
		CANNOT_DELETE_PRIVATE_ADDRESS COMMENT_INVALID DESCRIPTION_INVALID DUAL_STACK_INTERFACE DUPLICATE_LABEL_KEYS
		GROUP_INVALID HOSTNAME_INVALID HOSTNAME_MISSING HOUR_INVALID HOUR_MISSING INTERVAL_INVALID INTERVAL_MISSING
		INVALID_LABEL_KEY INVALID_LABEL_VALUE INVALID_REQUEST INVALID_ROUTE INVALID_ROUTE_FAMILY IP_ADDRESS_INVALID
		LOCAL_NETWORK_NO_ROUTER MAC_INVALID METHOD_NOT_ALLOWED NAME_INVALID NETWORK_INVALID NETWORK_NAME_INVALID
		NETWORK_NAME_MISSING NETWORK_TYPE_INVALID NETWORK_TYPE_MISSING NEXTHOP_INVALID NIC_MODEL_INVALID
		PTR_RECORD_INVALID PTR_RECORD_NOT_SUPPORTED PUBLIC_STORAGE_ATTACH REQUEST_INVALID RETENTION_INVALID
		RETENTION_MISSING ROUTER_NAME_MISSING SERVER_INVALID SERVER_TITLE_INVALID SERVER_TITLE_MISSING
		SIMPLE_BACKUP_INVALID SIZE_INVALID SIZE_MISSING STATIC_ROUTE_TARGET_INVALID STOP_TYPE_INVALID
		STORAGE_DELETION_POLICY_INVALID STORAGE_DEVICES_INVALID STORAGE_DEVICES_MISSING STORAGE_DEVICE_INVALID
		STORAGE_DEVICE_MISSING STORAGE_INVALID STORAGE_MISSING STORAGE_TIER_ILLEGAL STORAGE_TITLE_INVALID
		STORAGE_TITLE_MISSING STORAGE_TYPE_ILLEGAL TAG_INVALID TIER_INVALID TIMEOUT_ACTION_INVALID TIMEOUT_INVALID
		TIMEOUT_MISSING TITLE_INVALID TITLE_MISSING TOO_MANY_BOOT_DISKS TYPE_INVALID UNKNOWN_ATTRIBUTE USER_INVALID
		VALIDATION_ERROR ZONE_INVALID ZONE_MISMATCH ZONE_MISSING`,
}

// codesOfOthers concern firewalls, object storage, databases, peerings, consoles, CD-ROMs and the making of servers.
const codesOfOthers = `ACCESS_KEY_INVALID ACCESS_KEY_MISSING CAN_NOT_CREATE_PASSWORD_FOR_THE_SELECTED_DISTRIBUTION
	CDROM_DEVICE_IN_USE CDROM_EJECT_FAILED CONNECTION_POOL_NOT_FOUND CORE_MEMORY_UNSUPPORTED CORE_NUMBER_INVALID
	CREATE_PASSWORD_INVALID DB_EXISTS DB_NOT_FOUND DESTINATION_ADDRESS_END_INVALID DESTINATION_ADDRESS_ORDER_ILLEGAL
	DESTINATION_ADDRESS_START_INVALID DESTINATION_PORT_END_INVALID DESTINATION_PORT_ORDER_ILLEGAL
	DESTINATION_PORT_START_INVALID DIRECTION_INVALID DIRECTION_MISSING FAILED_TO_ADD_MEMORY FIREWALL_INVALID
	ICMP_TYPE_INVALID ICMP_TYPE_PROTOCOL_MISMATCH IMPORT_UNAVAILABLE INVALID_OPTIONS INVALID_USERNAME
	MEMORY_AMOUNT_INVALID METADATA_DISABLED_ON_CLOUD-INIT MS_LMA_REQUIRED MULTIPLE_TEMPLATES
	NO_AVAILABLE_MEMORY_SLOTS NO_CDROM_DEVICE OBJECT_STORAGE_FORBIDDEN OBJECT_STORAGE_NOT_FOUND
	PASSWORD_DELIVERY_INVALID PEERING_ACCOUNT_INVALID PEERING_CONFLICT PEERING_NOT_DISABLED PEERING_NOT_FOUND
	PEER_NETWORK_NOT_FOUND PLAN_CORE_NUMBER_ILLEGAL PLAN_MEMORY_AMOUNT_ILLEGAL PORT_PROTOCOL_MISMATCH
	POSITION_INVALID PROTOCOL_INVALID SECRET_KEY_INVALID SECRET_KEY_MISSING SOURCE_ADDRESS_END_INVALID
	SOURCE_ADDRESS_ORDER_ILLEGAL SOURCE_ADDRESS_START_INVALID SOURCE_PORT_END_INVALID SOURCE_PORT_ORDER_ILLEGAL
	SOURCE_PORT_START_INVALID STORAGE_IMPORT_NOT_IN_PROGRESS TARGET_IDENTIFIER_INVALID TARGET_TYPE_INVALID
	TIMEZONE_INVALID UNABLE_TO_CANCEL USER_DATA_INVALID VIDEO_MODEL_INVALID VNC_INVALID VNC_PASSWORD_INVALID
	WINDOWS_NOT_AVAILABLE`

func TestEveryCodeHasItsKind(t *testing.T) {
	for want, list := range kindsOfCodes {
		for _, code := range strings.Fields(list) {
			if got, _ := kindOf(code, http.StatusConflict); !errors.Is(got, want) {
				t.Errorf("%s means %q, want %q", code, got, want)
			}
		}
	}
}

// A newer SDK may know codes that nobody has thought about.
func TestEveryCodeOfTheSDKIsAccountedFor(t *testing.T) {
	known := map[string]bool{}
	for _, list := range kindsOfCodes {
		for _, code := range strings.Fields(list) {
			known[code] = true
		}
	}
	for _, code := range strings.Fields(codesOfOthers) {
		known[code] = true
	}

	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/UpCloudLtd/upcloud-go-api/v8").Output()
	if err != nil {
		t.Fatalf("find the SDK's source: %v", err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "upcloud", "error_codes.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`string\s*=\s*"([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) < 200 {
		t.Fatalf("only %d codes found in the SDK's source", len(found))
	}
	for _, code := range found {
		if !known[code[1]] {
			t.Errorf("code %s of the SDK is in neither list of this test: what does it mean to us?", code[1])
		}
	}
}

func TestStatusTellsWhereTheCodeDoesNot(t *testing.T) {
	for _, test := range []struct {
		code   string
		status int
		want   error
	}{
		{"SOMETHING_NEW", 400, ErrInvalid},
		{"SOMETHING_NEW", 402, ErrExhausted},
		{"SOMETHING_NEW", 403, ErrForbidden},
		{"SOMETHING_NEW", 404, ErrNotFound},
		{"SOMETHING_NEW", 409, ErrBusy},
		{"TOO_MANY_REQUESTS", 429, ErrUnavailable},
		{"SOMETHING_INVALID", 500, ErrUnavailable},
		{"", 503, ErrUnavailable},
		{"", 401, ErrUnauthorized},
		{"", 403, ErrForbidden},
		// What a proxy does not find is not what the API does not have.
		{"", 404, ErrUnavailable},
		{"", 400, ErrUnavailable},
		{"", 302, ErrUnavailable},
	} {
		if got, _ := kindOf(test.code, test.status); !errors.Is(got, test.want) {
			t.Errorf("code %q with status %d means %q, want %q", test.code, test.status, got, test.want)
		}
	}
}

func TestBothErrorFormatsAreRead(t *testing.T) {
	for name, test := range map[string]struct {
		body string
		want string
	}{
		"old": {
			`{"error":{"error_code":"STORAGE_NOT_FOUND","error_message":"The storage 01 does not exist."}}`,
			"GET /storage/{uuid}: The storage 01 does not exist (STORAGE_NOT_FOUND)",
		},
		"problem": {
			`{"correlation_id":"01JY","status":404,"title":"Service not found.","type":"https://developers.upcloud.com/1.3/errors#ERROR_RESOURCE_NOT_FOUND"}`,
			"GET /storage/{uuid}: Service not found (RESOURCE_NOT_FOUND)",
		},
		"problem with parameters": {
			`{"status":404,"title":"Validation error.","type":"https://x.example/#ERROR_RESOURCE_NOT_FOUND","invalid_params":[{"name":"frontends.0.port","reason":"Out of range."}]}`,
			"GET /storage/{uuid}: Validation error, frontends.0.port: Out of range (RESOURCE_NOT_FOUND)",
		},
	} {
		failed := answerError("GET /storage/{uuid}", true, &client.Error{ErrorCode: 404, ResponseBody: []byte(test.body)})
		if got := failed.Error(); got != test.want {
			t.Errorf("%s: text is\n%q, want\n%q", name, got, test.want)
		}
		if !errors.Is(failed, ErrNotFound) {
			t.Errorf("%s: kind is %v", name, failed.Kind)
		}
	}
	for _, body := range []string{"", "<html>", "null", "[]", `{"error":1}`, `{"error":null}`, `{"type":7}`} {
		failed := answerError("GET /storage", true, &client.Error{ErrorCode: 404, ResponseBody: []byte(body)})
		if errors.Is(failed, ErrNotFound) || failed.Error() == "" {
			t.Errorf("body %q reads as %v", body, failed)
		}
	}
}

func TestWhatTheAPISaysIsOneLineOfBoundedLength(t *testing.T) {
	long := strings.Repeat("Ä", 1<<20)
	body := `{"error":{"error_code":"X\nY","error_message":"one\n\ttwo ` + long + `"}}`
	failed := answerError("GET /storage", true, &client.Error{ErrorCode: 400, ResponseBody: []byte(body)})
	text := failed.Error()
	if strings.Contains(text, "\n") || !strings.Contains(text, "one two") || len(text) > 2000 || !utf8.ValidString(text) {
		t.Errorf("the text has %d bytes and begins %q", len(text), text[:100])
	}
}

func TestErrorReadsAsASentence(t *testing.T) {
	below := &Error{
		Kind: ErrExhausted, Op: "POST /server/{uuid}/storage/attach", Status: 409, Code: "STORAGE_DEVICE_LIMIT_REACHED",
		Message: "The server 00ab has all its storage devices.", Remedy: remedyDevices,
	}
	err := explain(below, Error{Op: "attach", Resource: "storage", ID: "01cd", Target: "to server 00ab"})
	want := "attach storage 01cd to server 00ab: The server 00ab has all its storage devices " +
		"(STORAGE_DEVICE_LIMIT_REACHED); " + remedyDevices
	if err.Error() != want {
		t.Errorf("text is\n%q, want\n%q", err, want)
	}
	if !errors.Is(err, ErrExhausted) || errors.Is(err, ErrBusy) {
		t.Errorf("kind is lost: %v", err)
	}
	if explain(nil, Error{}) != nil {
		t.Error("no error became one")
	}
}

func TestContextErrorsStayRecognisable(t *testing.T) {
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded} {
		for _, err := range []error{
			explain(ended, Error{Op: "attach"}),
			explain(fmt.Errorf("wrapped: %w", ended), Error{Op: "attach"}),
			explain(&Error{Kind: ended}, Error{Op: "attach"}),
		} {
			if !errors.Is(err, ended) || errors.Is(err, ErrUnavailable) {
				t.Errorf("%v is not recognised in %#v", ended, err)
			}
		}
	}
}
