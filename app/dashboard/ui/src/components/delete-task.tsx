import { Menu } from "@mantine/core";
import { useTranslation } from "react-i18next";

import { deleteTask } from "../api/actions";
import type { Task } from "../api/client";
import { useAct, useConfirm } from "./act";
import { useMay } from "./session";

/** In a menu: deletes a task after asking; nothing for who may not. */
export function DeleteTask({ task, then }: { task: Task; then?: () => void }) {
  const { t } = useTranslation();
  const mayDelete = useMay("admin");
  const confirm = useConfirm();
  const remove = useAct(deleteTask, { done: () => t("tasks.deleted", { name: task.name }), then: () => then?.() });
  if (!mayDelete) return null;
  const comesBack = task.declared_in_code && !task.declaration_missing;
  const ask = () =>
    confirm(t("tasks.deleteTitle", { name: task.name }), t(comesBack ? "tasks.deleteDeclared" : "tasks.deleteText"), t("common.delete"), () => remove.mutate(task.id));
  return <Menu.Item c="var(--mantine-color-error)" onClick={ask}>{t("common.delete")}</Menu.Item>;
}
