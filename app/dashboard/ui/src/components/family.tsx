import { Group, Table, Text } from "@mantine/core";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";

import type { ExecutionDetail, Schemas } from "../api/client";
import { count, visible } from "../format";
import { Section } from "./page";
import { StateMark } from "./state";
import { Ago } from "./time";

/** The execution that spawned this one. */
export function Parent({ parent, childKey }: { parent: Schemas["RelativeAnswer"]; childKey: string | null }) {
  const { t } = useTranslation();
  return (
    <>
      <Link className="link" to="/executions/$id" params={{ id: parent.id }}>{parent.task_type} #{parent.id}</Link>
      {childKey === null ? null : <Text component="span" size="sm" c="dimmed"> · {t("execution.asChild", { key: childKey })}</Text>}
    </>
  );
}

/** What this execution has spawned. */
export function Children({ execution }: { execution: ExecutionDetail }) {
  const { t, i18n } = useTranslation();
  const { children, child_count: total } = execution;
  if (children.length === 0) return null;
  const links = (
    <Group gap="md">
      <Link className="link" to="/executions" search={{ parent_id: execution.id, state: ["failed"] }}>{t("state.failed")}</Link>
      <Link className="link" to="/executions" search={{ parent_id: execution.id }}>{t("common.all")}</Link>
    </Group>
  );
  return (
    <Section title={t("execution.children")} flush aside={links}>
      {total > children.length ? <Text size="sm" c="dimmed" px="md" pb="xs">{t("execution.lastChildren", { shown: children.length, total: count(total, i18n.language) })}</Text> : null}
      <Table.ScrollContainer minWidth={520} scrollAreaProps={{ type: "auto" }}>
        <Table className="rows">
          <Table.Tbody>
            {children.map((child) => (
              <Table.Tr key={child.id} data-child={child.child_key}>
                <Table.Td maw={220}><Link className="link" to="/executions/$id" params={{ id: child.id }}>{visible(child.child_key ?? child.task_type)} #{child.id}</Link></Table.Td>
                <Table.Td><Text size="sm" c="dimmed">{child.task_type}</Text></Table.Td>
                <Table.Td><StateMark state={child.state} reason={child.reason} /></Table.Td>
                <Table.Td><Ago at={child.finished_at ?? child.created_at} /></Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Section>
  );
}
