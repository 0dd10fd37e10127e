import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/** Grants one right: servers, principal, operation, resource type, resource name. */
public class Rights {
    public static void main(String[] arguments) throws Exception {
        var operation = AclOperation.fromString(arguments[2]);
        var entry = new AccessControlEntry(arguments[1], "*", operation, AclPermissionType.ALLOW);
        var resource = new ResourcePattern(
            ResourceType.fromString(arguments[3]), arguments[4], PatternType.LITERAL);
        var right = new AclBinding(resource, entry);
        try (var admin = Admin.create(Map.of("bootstrap.servers", arguments[0]))) {
            admin.createAcls(List.of(right)).all().get();
        }
    }
}
